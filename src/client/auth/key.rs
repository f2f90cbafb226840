//! [`SigningKey`]: a private key that signs assertions.

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
/// Clones share the key, which AWS-LC wipes when the last clone is dropped. `Debug` does not show it.
/// The text passed in and the parts of a JWK are wiped. The PEM parser's Base64 buffers and the
/// caller's own copies are not.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<KeyPair>,
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
}

impl SigningKey {
    /// Parses the first private key of a PEM text: `PRIVATE KEY` (PKCS#8, RFC 5208),
    /// `RSA PRIVATE KEY` (PKCS#1, RFC 8017) or `EC PRIVATE KEY` (SEC1, RFC 5915), unencrypted.
    ///
    /// # Errors
    ///
    /// The text contains no such key, or the key is damaged, of another kind, or RSA of fewer than
    /// 2048 bits (RFC 7518 §3.3). The error shows nothing of the text.
    pub fn from_pem(pem: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let pem = pem.into();
        let text = pem.expose_secret();
        // The parser's own errors quote the text.
        let mut der = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ConfigError::new(FIELD, pem_problem(text)))?;
        let pair = KeyPair::from_der(&der);
        der.zeroize();
        pair.map(Self::new)
    }

    /// Parses a private JWK (RFC 7517; RFC 7518 §6, RFC 8037 §2): `kty` is `RSA` with all of
    /// `n e d p q dp dq qi`, `EC` with `crv` `P-256`, or `OKP` with `crv` `Ed25519`. Its `kid` and
    /// `alg` become [`key_id`](Self::key_id) and [`algorithm`](Self::algorithm).
    ///
    /// # Errors
    ///
    /// The key is of another kind, damaged, RSA of fewer than 2048 bits (RFC 7518 §3.3), has another
    /// `alg`, or is not for signing (`use`). The error shows nothing of the text.
    pub fn from_jwk(jwk: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let jwk = jwk.into();
        let parsed = jwk::read(jwk.expose_secret())?;
        let mut key = Self::new(parsed.pair);
        key.key_id = parsed.key_id;
        if let Some(algorithm) = parsed.algorithm {
            key.algorithm = algorithm;
            key.check()?;
        }
        Ok(key)
    }

    /// Sets the `kid` of the assertion's header (RFC 7515 §4.1.4), by which the server finds the key.
    /// Defaults to the `kid` of the JWK, otherwise to none.
    #[must_use]
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Sets the algorithm. Defaults to the `alg` of the JWK, otherwise to `RS256` for RSA, `ES256` for
    /// EC and `EdDSA` for OKP. If it does not match the key, building the source fails.
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

    /// Checks that the algorithm matches the key, and that `key_id` is not empty.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        match (&*self.pair, self.algorithm) {
            (KeyPair::Rsa(_), Rs256 | Ps256)
            | (KeyPair::P256(_), Es256)
            | (KeyPair::Ed25519(_), EdDsa) => {}
            (pair, algorithm) => {
                let problem = format!(
                    "{} is not for {}; leave `algorithm` out, or use another key",
                    algorithm.name(),
                    pair.name()
                );
                return Err(ConfigError::new(FIELD, problem));
            }
        }
        if self.key_id.as_deref().is_some_and(str::is_empty) {
            return Err(ConfigError::new(FIELD, "`key_id` is empty; leave it out"));
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

/// Omits the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Returns why a text contains no private key.
fn pem_problem(text: &str) -> &'static str {
    if text.trim_start().starts_with('{') {
        "a JWK, not PEM; use `SigningKey::from_jwk`"
    } else if text.contains("ENCRYPTED") {
        "the key is encrypted; decrypt it first, for example with `openssl pkcs8`"
    } else if text.contains("PRIVATE KEY-----") {
        "the PEM text is damaged; check its line breaks and its END line"
    } else if text.contains("-----BEGIN ") {
        "contains no private key; a public key or a certificate cannot sign"
    } else {
        "not PEM, which begins with `-----BEGIN PRIVATE KEY-----`; \
         pass the text, not the name of a file"
    }
}
