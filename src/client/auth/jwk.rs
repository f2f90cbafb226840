//! Parses private keys in JSON (RFC 7517).

use aws_lc_rs::{
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::key_pair::{FIELD, KeyPair, SigningAlgorithm, ed25519, other_kind, p256, rsa};
use crate::{error::ConfigError, json};

/// A parsed JWK.
pub(super) struct ParsedJwk {
    pub(super) pair: KeyPair,
    pub(super) key_id: Option<String>,
    pub(super) algorithm: Option<SigningAlgorithm>,
}

/// Secrets are borrowed, not copied: Base64 needs no escapes in JSON.
#[derive(Deserialize)]
struct Jwk<'a> {
    kty: Option<&'a str>,
    crv: Option<&'a str>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<&'a str>,
    e: Option<&'a str>,
    d: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    dp: Option<&'a str>,
    dq: Option<&'a str>,
    qi: Option<&'a str>,
    x: Option<&'a str>,
    y: Option<&'a str>,
    keys: Option<serde::de::IgnoredAny>,
}

pub(super) fn read(text: &str) -> Result<ParsedJwk, ConfigError> {
    let jwk: Jwk<'_> = json::object(text.as_bytes())
        .map_err(|_| ConfigError::new(FIELD, "not a JWK, which is a JSON object (RFC 7517 §4)"))?;
    if jwk.keys.is_some() {
        return Err(ConfigError::new(FIELD, "a set of keys; pass one of them"));
    }
    if jwk
        .purpose
        .as_deref()
        .is_some_and(|purpose| purpose != "sig")
    {
        let problem = "not a key for signing: `use` is not `sig` (RFC 7517 §4.2)";
        return Err(ConfigError::new(FIELD, problem));
    }
    let algorithm = match jwk.alg.as_deref().map(SigningAlgorithm::parse) {
        Some(None) => {
            let problem = "`alg` is not RS256, PS256, ES256 or EdDSA";
            return Err(ConfigError::new(FIELD, problem));
        }
        known => known.flatten(),
    };
    let pair = match (jwk.kty, jwk.crv) {
        (Some("RSA"), _) => jwk.rsa()?,
        (Some("EC"), Some("P-256")) => jwk.p256()?,
        (Some("OKP"), Some("Ed25519")) => jwk.ed25519()?,
        _ => return Err(other_kind()),
    };
    Ok(ParsedJwk {
        pair,
        key_id: jwk.kid,
        algorithm,
    })
}

impl Jwk<'_> {
    fn rsa(&self) -> Result<KeyPair, ConfigError> {
        let d = private(self.d)?;
        let public_key = PublicKeyComponents {
            n: number(self.n, "n")?,
            e: number(self.e, "e")?,
        };
        rsa(RsaKeyPair::from_components(&KeyPairComponents {
            public_key,
            d,
            p: number(self.p, "p")?,
            q: number(self.q, "q")?,
            dP: number(self.dp, "dp")?,
            dQ: number(self.dq, "dq")?,
            qInv: number(self.qi, "qi")?,
        }))
    }

    fn p256(&self) -> Result<KeyPair, ConfigError> {
        let d = private(self.d)?;
        // An uncompressed point (SEC1 §2.3.3).
        let mut point = Vec::with_capacity(65);
        point.push(4);
        point.extend_from_slice(&octets(self.x, "x")?.0);
        point.extend_from_slice(&octets(self.y, "y")?.0);
        p256(EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &d.0,
            &point,
        ))
    }

    fn ed25519(&self) -> Result<KeyPair, ConfigError> {
        let d = private(self.d)?;
        let x = octets(self.x, "x")?;
        ed25519(Ed25519KeyPair::from_seed_and_public_key(&d.0, &x.0))
    }
}

/// A member's bytes, wiped when dropped.
struct Octets(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Octets {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn private(d: Option<&str>) -> Result<Octets, ConfigError> {
    if d.is_none() {
        let problem = "a public key; pass the private key, which has `d`";
        return Err(ConfigError::new(FIELD, problem));
    }
    octets(d, "d")
}

fn octets(member: Option<&str>, name: &str) -> Result<Octets, ConfigError> {
    let wrong = || {
        let problem = format!("`{name}` is missing, or not unpadded Base64url");
        ConfigError::new(FIELD, problem)
    };
    let text = member.ok_or_else(wrong)?;
    // Allocated once: reallocation would leave a copy that is not wiped.
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = URL_SAFE_NO_PAD
        .decode_slice(text, &mut bytes)
        .map_err(|_| wrong())?;
    bytes.truncate(length);
    Ok(Octets(bytes))
}

/// Removes leading zeros, which some writers leave (RFC 7518 §2 allows none).
fn number(member: Option<&str>, name: &str) -> Result<Octets, ConfigError> {
    let mut octets = octets(member, name)?;
    let zeros = octets.0.iter().take_while(|byte| **byte == 0).count();
    octets.0.drain(..zeros);
    Ok(octets)
}
