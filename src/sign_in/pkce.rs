//! Proof Key for Code Exchange (RFC 7636): only the process that started a login can use its code.
//!
//! Invariants: a verifier is used for one login; `plain` is used only if configured, and never as a
//! fallback from `S256` (§7.2).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::ConfigError;

/// The code challenge method (RFC 7636 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    #[default]
    S256,
    Plain,
    /// No challenge, for servers that reject unknown parameters.
    Off,
}

impl Method {
    /// Parses a name, in any case: `S256`, or `SHA256` and `SHA-256`, which some manuals use.
    pub(crate) fn parse(name: &str) -> Result<Self, ConfigError> {
        const FIELD: &str = "code_challenge_method";
        match name.to_ascii_uppercase().as_str() {
            "S256" | "SHA256" | "SHA-256" => Ok(Self::S256),
            "PLAIN" => Err(ConfigError::new(
                FIELD,
                "`plain` gives little protection; if the server supports nothing else, \
                 call `insecure_plain_challenge()`",
            )),
            _ => Err(ConfigError::new(
                FIELD,
                "not a method of RFC 7636; use `S256` (or `SHA256`, `SHA-256`)",
            )),
        }
    }

    /// Returns the name on the wire.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::S256 => Some("S256"),
            Self::Plain => Some("plain"),
            Self::Off => None,
        }
    }
}

/// A code verifier (RFC 7636 §4.1).
#[derive(Clone, Debug)]
pub(crate) struct Verifier(SecretString);

impl Verifier {
    /// 32 random octets, as §4.1 recommends: 43 characters.
    pub(crate) fn random() -> Self {
        Self(random())
    }

    /// Checks a verifier of the caller's own.
    pub(crate) fn given(verifier: SecretString) -> Result<Self, ConfigError> {
        let text = verifier.expose_secret();
        let unreserved =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        if !(43..=128).contains(&text.len()) || !text.bytes().all(unreserved) {
            return Err(ConfigError::new(
                "code_verifier",
                "not 43 to 128 characters of `A-Z a-z 0-9 - . _ ~` (RFC 7636 §4.1)",
            ));
        }
        Ok(Self(verifier))
    }

    pub(crate) fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the challenge; `None` if PKCE is off.
    pub(crate) fn challenge(&self, method: Method) -> Option<String> {
        match method {
            Method::S256 => {
                let digest = Sha256::digest(self.expose_secret().as_bytes());
                Some(URL_SAFE_NO_PAD.encode(digest))
            }
            Method::Plain => Some(self.expose_secret().to_owned()),
            Method::Off => None,
        }
    }
}

/// Returns 256 random bits as 43 characters of base64url. The operating system seeds the generator.
pub(crate) fn random() -> SecretString {
    let octets = Zeroizing::new(rand::random::<[u8; 32]>());
    SecretString::from(URL_SAFE_NO_PAD.encode(*octets))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn p73_c26_s256_challenge_matches_the_vector_of_rfc_7636_appendix_b() {
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let challenge = Verifier::given(verifier).unwrap().challenge(Method::S256);
        let expected = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(challenge.as_deref(), Some(expected));
    }

    #[test]
    fn p74_s256_challenge_is_43_characters_of_base64url() {
        for _ in 0..1_000 {
            let challenge = Verifier::random().challenge(Method::S256).unwrap();
            assert_eq!(challenge.len(), 43);
            let of_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            assert!(challenge.bytes().all(of_base64url), "{challenge}");
        }
    }

    #[test]
    fn p71_p72_random_verifier_is_32_octets_and_unique() {
        let verifiers: HashSet<String> = (0..1_000)
            .map(|_| Verifier::random().expose_secret().to_owned())
            .collect();
        assert_eq!(verifiers.len(), 1_000);
        for verifier in verifiers {
            assert_eq!(verifier.len(), 43);
            assert_eq!(URL_SAFE_NO_PAD.decode(&verifier).unwrap().len(), 32);
            assert!(Verifier::given(verifier.into()).is_ok());
        }
    }

    #[test]
    fn p71_s1_11_s2_6_configured_verifier_is_checked() {
        let given = |text: String| Verifier::given(text.into()).is_ok();
        for good in ["a".repeat(43), "Z9-._~".repeat(8), "x".repeat(128)] {
            assert!(given(good));
        }
        for bad in [
            "a".repeat(42),
            "a".repeat(129),
            format!("{}+", "a".repeat(43)),
        ] {
            assert!(!given(bad));
        }
    }

    #[test]
    fn p76_s1_10_s2_5_challenge_method_name_accepts_common_spellings() {
        for name in ["S256", "s256", "SHA256", "SHA-256", "sha-256"] {
            assert_eq!(Method::parse(name).unwrap().name(), Some("S256"));
        }
        for name in ["plain", "PLAIN"] {
            let error = Method::parse(name).unwrap_err().to_string();
            assert!(error.contains("insecure_plain_challenge"), "{error}");
        }
        assert!(Method::parse("S512").is_err());
    }

    #[test]
    fn debug_output_shows_no_verifier() {
        let verifier = Verifier::given("canary".repeat(8).into()).unwrap();
        assert!(!format!("{verifier:?}").contains("canary"));
    }
}
