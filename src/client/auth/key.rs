//! [`SigningKey`]: a private key.

use std::{fmt, sync::Arc};

use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroize as _;

use super::{
    jwk,
    key_pair::{FIELD, KeyPair, SigningAlgorithm},
};
use crate::error::ConfigError;

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
    pair: Arc<KeyPair>,
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
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
        let pair = KeyPair::from_der(&der);
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

    fn new(pair: KeyPair) -> Self {
        let algorithm = match pair {
            KeyPair::Rsa(_) => SigningAlgorithm::Rs256,
            KeyPair::P256(_) => SigningAlgorithm::Es256,
            KeyPair::Ed25519(_) => SigningAlgorithm::EdDsa,
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
            (KeyPair::Rsa(_), Rs256 | Ps256)
            | (KeyPair::P256(_), Es256)
            | (KeyPair::Ed25519(_), EdDsa) => {}
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

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.pair.sign(self.algorithm, message)
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
