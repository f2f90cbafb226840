//! Signed assertions (RFC 7523 §3) for client authentication (§2.2; OpenID Connect Core §9) and for the
//! JWT bearer grant (§2.1).
//!
//! Invariant: every request has a new, signed, short-lived assertion with a unique `jti`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::key::SigningKey;
use crate::error::ConfigError;

/// `client_assertion_type` (RFC 7523 §2.2).
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The maximum lifetime of a client assertion.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(300);

/// The default `typ`, which every server accepts.
const DEFAULT_TYP: &str = "JWT";

/// The claims that the crate sets.
pub(crate) const REGISTERED: [&str; 7] = ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"];

/// The length of the hash (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;

/// The settings of assertions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) audience: Option<String>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) not_before: bool,
    /// The header's `typ`; none if empty.
    pub(crate) typ: Option<String>,
}

impl Settings {
    /// Checks the settings. `names` are those of the setters for audience and lifetime.
    pub(crate) fn check(
        &self,
        names: [&'static str; 2],
        max_lifetime: Duration,
    ) -> Result<(), ConfigError> {
        let [audience, lifetime] = names;
        if self.audience.as_deref().is_some_and(str::is_empty) {
            let problem = "empty; leave it out, or set the server's issuer";
            return Err(ConfigError::new(audience, problem));
        }
        if let Some(length) = self.lifetime
            && !(Duration::from_secs(1)..=max_lifetime).contains(&length)
        {
            let problem = format!(
                "out of range; set a lifetime from 1 s to {} min",
                max_lifetime.as_secs() / 60
            );
            return Err(ConfigError::new(lifetime, problem));
        }
        Ok(())
    }
}

/// The claims of an assertion.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: Option<&'a str>,
    /// Used unless the settings have an audience.
    pub(crate) audience: &'a str,
    /// None of them is [`REGISTERED`].
    pub(crate) claims: &'a [(String, Value)],
}

/// Rejects short secrets: an attacker could guess them offline from one assertion.
pub(super) fn check_secret(secret: &SecretString) -> Result<(), ConfigError> {
    if secret.expose_secret().len() >= MIN_SECRET_LEN {
        return Ok(());
    }
    Err(ConfigError::new(
        "client_secret",
        "HS256 requires a secret of 32 bytes or more (RFC 7518 §3.2); \
         get a longer one from the server, or use `ClientAuth::private_key_jwt`",
    ))
}

/// The key that signs an assertion.
#[derive(Clone, Copy)]
pub(crate) enum Signer<'a> {
    Secret(&'a SecretString),
    Key(&'a SigningKey),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    aud: &'a str,
    jti: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(flatten)]
    further: BTreeMap<&'a str, &'a Value>,
}

/// Signs a new assertion.
pub(crate) fn assertion(
    signer: Signer<'_>,
    settings: &Settings,
    statement: Statement<'_>,
    now: SystemTime,
) -> Result<Zeroizing<String>, ConfigError> {
    let failed = || ConfigError::new("signing_key", "the assertion cannot be signed");
    let (alg, kid) = match signer {
        Signer::Secret(_) => ("HS256", None),
        Signer::Key(key) => (key.alg(), key.kid()),
    };
    // 128 random bits are unique (RFC 7523 §3, 7.).
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| failed())?;
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let iat = since_epoch.unwrap_or_default().as_secs();
    let lifetime = settings.lifetime.unwrap_or(DEFAULT_LIFETIME);
    let header = Header {
        alg,
        typ: settings.typ.as_deref().unwrap_or(DEFAULT_TYP),
        kid,
    };
    let claims = Claims {
        iss: statement.issuer,
        sub: statement.subject,
        aud: settings.audience.as_deref().unwrap_or(statement.audience),
        jti: &URL_SAFE_NO_PAD.encode(id),
        iat,
        exp: iat.saturating_add(lifetime.as_secs()),
        nbf: settings.not_before.then_some(iat),
        further: (statement.claims.iter())
            .map(|(name, value)| (name.as_str(), value))
            .collect(),
    };
    let header = serde_json::to_vec(&header).map_err(|_| failed())?;
    let claims = serde_json::to_vec(&claims).map_err(|_| failed())?;
    let unsigned = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = match signer {
        Signer::Secret(secret) => {
            let secret = secret.expose_secret().as_bytes();
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            hmac::sign(&key, unsigned.as_bytes()).as_ref().to_vec()
        }
        Signer::Key(key) => key.sign(unsigned.as_bytes()).ok_or_else(failed)?,
    };
    // Without its signature, an assertion is no secret.
    let encoded = base64::encoded_len(signature.len(), false).unwrap_or_default();
    let mut whole = Zeroizing::new(String::with_capacity(unsigned.len() + 1 + encoded));
    whole.push_str(&unsigned);
    whole.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut whole);
    Ok(whole)
}

#[cfg(test)]
mod tests;
