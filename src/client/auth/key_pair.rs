//! [`KeyPair`]: a private key in AWS-LC, and its signatures.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use rustls_pki_types::PrivateKeyDer;

use crate::error::ConfigError;

/// The field name in errors of a key.
pub(super) const FIELD: &str = "signing_key";

/// The signature algorithm of an assertion (RFC 7518 §3.1, RFC 8037 §3.1).
///
/// The server must accept it for the registered key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: the default for RSA keys.
    Rs256,
    /// RSASSA-PSS with SHA-256, for RSA keys.
    Ps256,
    /// ECDSA on P-256 with SHA-256, for EC keys.
    Es256,
    /// Ed25519, for OKP keys.
    EdDsa,
}

impl SigningAlgorithm {
    /// Returns the value of `alg`.
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

pub(super) enum KeyPair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl KeyPair {
    /// Signs a message. Returns `None` if AWS-LC fails, for lack of entropy or memory.
    pub(super) fn sign(&self, algorithm: SigningAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match algorithm {
                    SigningAlgorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::P256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }

    /// Returns the name in error texts.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RSA keys",
            Self::P256(_) => "EC keys on P-256",
            Self::Ed25519(_) => "Ed25519 keys",
        }
    }

    pub(super) fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, ConfigError> {
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
        // The algorithm's identifier follows two lengths and a version.
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
            // `maybe_unchecked`: OpenSSL writes only the private part.
            ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der))
        } else {
            Err(other_kind())
        }
    }
}

pub(super) fn rsa<E>(pair: Result<RsaKeyPair, E>) -> Result<KeyPair, ConfigError> {
    let problem = "the RSA key is damaged, or not of 2048 to 8192 bits (RFC 7518 §3.3); \
                   generate one of 2048 bits or more";
    pair.map(KeyPair::Rsa)
        .map_err(|_| ConfigError::new(FIELD, problem))
}

pub(super) fn p256<E>(pair: Result<EcdsaKeyPair, E>) -> Result<KeyPair, ConfigError> {
    let problem = "the EC key is damaged, or not on P-256 (`prime256v1`); generate one on P-256";
    pair.map(KeyPair::P256)
        .map_err(|_| ConfigError::new(FIELD, problem))
}

pub(super) fn ed25519<E>(pair: Result<Ed25519KeyPair, E>) -> Result<KeyPair, ConfigError> {
    pair.map(KeyPair::Ed25519)
        .map_err(|_| ConfigError::new(FIELD, "the Ed25519 key is damaged"))
}

pub(super) fn other_kind() -> ConfigError {
    ConfigError::new(
        FIELD,
        "a key of another kind; use RSA, EC on P-256, or Ed25519",
    )
}

/// The object identifiers in PKCS#8, in DER (RFC 8017 §A.1, RFC 5480 §2.1.1, RFC 8410 §3).
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
