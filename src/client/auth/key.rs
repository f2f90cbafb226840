//! [`SigningKey`]: a private key.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroize as _;

use super::jwk;
use crate::error::ConfigError;

/// The setting that errors of a key are about.
pub(super) const FIELD: &str = "signing_key";

/// How an assertion is signed with a private key (RFC 7518 §3.1, RFC 8037 §3.1).
///
/// The server has to have it registered with the key, or take any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: the default of RSA keys.
    Rs256,
    /// RSASSA-PSS with SHA-256, for RSA keys.
    Ps256,
    /// ECDSA on P-256 with SHA-256: the one of EC keys.
    Es256,
    /// Ed25519: the one of OKP keys.
    EdDsa,
}

impl SigningAlgorithm {
    /// As it stands in the header `alg`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let all = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];
        all.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A private key, for [`ClientAuth::private_key_jwt`](crate::ClientAuth::private_key_jwt) and
/// [`JwtBearer`](crate::JwtBearer): RSA of 2048 to 8192 bits, EC on P-256, or Ed25519.
///
/// ```
/// use bearer_auth::{ConfigError, SigningAlgorithm, SigningKey};
///
/// # fn key(pem: String) -> Result<SigningKey, ConfigError> {
/// let key = SigningKey::from_pem(pem)?
///     .key_id("2026-11")
///     .algorithm(SigningAlgorithm::Ps256);
/// # Ok(key) }
/// ```
///
/// Clones share the one key. It is held by AWS-LC, which wipes its memory when the last clone is
/// gone, and it shows in no `Debug`. What is passed in is wiped, and so are the parts of a JWK; the
/// buffers in which the PEM reader undoes Base64 are not, nor are copies that the caller keeps.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
}

pub(super) enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// The first private key of a PEM text: `PRIVATE KEY` (PKCS#8, RFC 5208), `RSA PRIVATE KEY`
    /// (PKCS#1, RFC 8017) or `EC PRIVATE KEY` (SEC1, RFC 5915), not encrypted.
    ///
    /// # Errors
    ///
    /// When there is no such key in it, or the key is damaged, of another kind, or RSA of fewer
    /// than 2048 bits (RFC 7518 §3.3). The error shows nothing of the text.
    pub fn from_pem(pem: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let pem = pem.into();
        let text = pem.expose_secret();
        // The reader's own errors quote the text.
        let mut der = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ConfigError::new(FIELD, what_it_is_instead(text)))?;
        let pair = Pair::from_der(&der);
        der.zeroize();
        pair.map(Self::new)
    }

    /// A private JWK as JSON (RFC 7517; RFC 7518 §6, RFC 8037 §2): its `kty` is `RSA` with all of
    /// `n e d p q dp dq qi`, `EC` with the `crv` `P-256`, or `OKP` with the `crv` `Ed25519`. Its
    /// `kid` and `alg` are taken over.
    ///
    /// # Errors
    ///
    /// When it is none of these, is damaged, is RSA of fewer than 2048 bits (RFC 7518 §3.3), has
    /// another `alg`, or is not meant for signing (`use`). The error shows nothing of the text.
    pub fn from_jwk(jwk: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let jwk = jwk.into();
        let parts = jwk::read(jwk.expose_secret())?;
        let mut key = Self::new(parts.pair);
        key.key_id = parts.key_id;
        if let Some(algorithm) = parts.algorithm {
            key.algorithm = algorithm;
            key.check()?;
        }
        Ok(key)
    }

    /// The `kid` in the assertion's header (RFC 7515 §4.1.4), so that a server finds the key among
    /// those of the client. Default: that of the JWK, if it has one, and none otherwise.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// The algorithm. Default: that of the JWK, if it says one, or else `RS256` for RSA, `ES256`
    /// for EC and `EdDSA` for OKP. One that does not fit the key is an error when the source is
    /// built.
    #[must_use]
    pub fn algorithm(mut self, algorithm: SigningAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    fn new(pair: Pair) -> Self {
        let algorithm = match pair {
            Pair::Rsa(_) => SigningAlgorithm::Rs256,
            Pair::P256(_) => SigningAlgorithm::Es256,
            Pair::Ed25519(_) => SigningAlgorithm::EdDsa,
        };
        Self {
            pair: Arc::new(pair),
            algorithm,
            key_id: None,
        }
    }

    /// Whether algorithm and key fit, and the key's name can be one.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        match (&*self.pair, self.algorithm) {
            (Pair::Rsa(_), Rs256 | Ps256) | (Pair::P256(_), Es256) | (Pair::Ed25519(_), EdDsa) => {}
            (pair, algorithm) => {
                let problem = format!(
                    "{} is not for {}; leave `algorithm` out, or give another key",
                    algorithm.name(),
                    pair.name()
                );
                return Err(ConfigError::new(FIELD, problem));
            }
        }
        if self.key_id.as_deref().is_some_and(str::is_empty) {
            return Err(ConfigError::new(FIELD, "an empty `key_id`; leave it out"));
        }
        Ok(())
    }

    pub(super) fn alg(&self) -> &'static str {
        self.algorithm.name()
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// `None` when the library refuses, which it does without entropy or memory.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match self.algorithm {
                    SigningAlgorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::P256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }
}

/// Without the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Pair {
    fn name(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RSA keys",
            Self::P256(_) => "EC keys on P-256",
            Self::Ed25519(_) => "Ed25519 keys",
        }
    }

    fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, ConfigError> {
        match der {
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der())),
            PrivateKeyDer::Sec1(der) => p256(EcdsaKeyPair::from_private_key_der(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                der.secret_sec1_der(),
            )),
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8(der.secret_pkcs8_der()),
            _ => Err(other_kind()),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, ConfigError> {
        // The algorithm's identifier stands behind two lengths and a version.
        let start = &der[..der.len().min(32)];
        let is = |oid: &[u8]| start.windows(oid.len()).any(|window| window == oid);
        if is(RSA_ENCRYPTION) {
            rsa(RsaKeyPair::from_pkcs8(der))
        } else if is(EC_PUBLIC_KEY) {
            p256(EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                der,
            ))
        } else if is(ED25519) {
            // `maybe_unchecked`: OpenSSL writes the private part alone.
            ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der))
        } else {
            Err(other_kind())
        }
    }
}

pub(super) fn rsa<E>(pair: Result<RsaKeyPair, E>) -> Result<Pair, ConfigError> {
    let problem = "an RSA key that is damaged, or has not 2048 to 8192 bits (RFC 7518 §3.3); \
                   make one of 2048 bits or more";
    pair.map(Pair::Rsa)
        .map_err(|_| ConfigError::new(FIELD, problem))
}

pub(super) fn p256<E>(pair: Result<EcdsaKeyPair, E>) -> Result<Pair, ConfigError> {
    let problem = "an EC key that is damaged, or not on P-256 (`prime256v1`); make one that is";
    pair.map(Pair::P256)
        .map_err(|_| ConfigError::new(FIELD, problem))
}

pub(super) fn ed25519<E>(pair: Result<Ed25519KeyPair, E>) -> Result<Pair, ConfigError> {
    pair.map(Pair::Ed25519)
        .map_err(|_| ConfigError::new(FIELD, "an Ed25519 key that is damaged"))
}

pub(super) fn other_kind() -> ConfigError {
    ConfigError::new(
        FIELD,
        "a key of another kind; it has to be RSA, EC on P-256, or Ed25519",
    )
}

/// Why there is no private key in a text.
fn what_it_is_instead(text: &str) -> &'static str {
    if text.trim_start().starts_with('{') {
        "this looks like a JWK; use `SigningKey::from_jwk`"
    } else if text.contains("ENCRYPTED") {
        "the key is encrypted; decrypt it first, such as with `openssl pkcs8`"
    } else if text.contains("PRIVATE KEY-----") {
        "the PEM text is damaged: are its line breaks and its END line there?"
    } else if text.contains("-----BEGIN ") {
        "no private key is in it; a public key or a certificate is not enough"
    } else {
        "not PEM, which begins with `-----BEGIN PRIVATE KEY-----`; \
         give the text itself, not the name of a file"
    }
}

/// DER of the object identifiers in PKCS#8 (RFC 8017 §A.1, RFC 5480 §2.1.1, RFC 8410 §3).
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
