//! Sealing: authenticated encryption of a store's content.
//!
//! ```text
//! "ba-seal\n" │ version │ key id │ nonce │ ciphertext and tag
//!      8      │    1    │    8   │   24  │     n + 16
//! ```
//!
//! XChaCha20-Poly1305. Invariants:
//!
//! 1. The bytes before the nonce are associated data: a changed version or key id does not open.
//! 2. So is the entry's name, in a store with several: content that is moved to another does not open.
//! 3. Every nonce comes from the operating system: a fork would copy a generator of this process, which
//!    would repeat its nonces.
//! 4. An error says why the content does not open, and shows none of it.

use std::{borrow::Cow, fmt};

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand::{TryRng as _, rngs::SysRng};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

use super::disk::SEALED;
use crate::error::{BoxError, ConfigError};

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;
const HEADER: usize = SEALED.len() + 1 + ID;

/// A key of 32 bytes that seals sessions: see
/// [`FileStore::sealed_with`](super::FileStore::sealed_with).
///
/// It has to be random: a password is not a key. `Debug` shows only the key's id, which sealed content
/// has in clear text. The key is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct SealingKey {
    id: [u8; ID],
    key: Arc<SecretBox<[u8; 32]>>,
}

impl SealingKey {
    /// Returns the key of these 32 bytes. Wipe your own copy.
    #[must_use]
    pub fn new(mut key: [u8; 32]) -> Self {
        let boxed = SecretBox::init_with_mut(|boxed: &mut [u8; 32]| boxed.copy_from_slice(&key));
        key.zeroize();
        Self::boxed(boxed)
    }

    /// Reads a key from base64, in either alphabet, with or without padding or surrounding white space.
    /// `openssl rand -base64 32` prints one.
    ///
    /// # Errors
    ///
    /// The text is not base64, or not of 32 bytes.
    pub fn from_base64(key: &str) -> Result<Self, ConfigError> {
        const FIELD: &str = "sealing key";
        let alphabet = match key.contains(['-', '_']) {
            true => &URL_SAFE,
            false => &STANDARD,
        };
        let config = GeneralPurposeConfig::new();
        let config = config.with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(alphabet, config).decode(key.trim());
        // The decoder's error may show what it read.
        let decoded = decoded.map_err(|_| ConfigError::new(FIELD, "not base64"))?;
        let decoded = Zeroizing::new(decoded);
        let mut boxed = SecretBox::<[u8; 32]>::default();
        match decoded.len() {
            32 => boxed.expose_secret_mut().copy_from_slice(&decoded),
            length => {
                let problem = format!("{length} bytes instead of 32");
                return Err(ConfigError::new(FIELD, problem));
            }
        }
        Ok(Self::boxed(boxed))
    }

    fn boxed(key: SecretBox<[u8; 32]>) -> Self {
        let hash = Sha256::new()
            .chain_update(b"bearer-auth sealing key id\0")
            .chain_update(key.expose_secret())
            .finalize();
        let mut id = [0; ID];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        let key = Arc::new(key);
        Self { id, key }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.expose_secret().into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({}, [REDACTED])", Id(&self.id))
    }
}

/// A key's id, in hexadecimal.
struct Id<'a>(&'a [u8]);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals with one key, and opens with that and previous ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sealer {
    seals: Option<SealingKey>,
    opens: Vec<SealingKey>,
}

impl Sealer {
    pub(crate) fn seal_with(&mut self, key: SealingKey) {
        self.seals = Some(key);
    }

    pub(crate) fn open_with(&mut self, key: SealingKey) {
        self.opens.push(key);
    }

    /// Whether a key is configured.
    pub(crate) fn seals(&self) -> bool {
        self.seals.is_some()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.seals() || self.opens.is_empty() {
            return Ok(());
        }
        let problem = "`with_previous_key` needs `sealed_with`: \
                       otherwise new content would be in clear text";
        Err(ConfigError::new("sealing key", problem))
    }

    /// Seals `clear` for the entry named `place`, which may be empty: no other entry opens it.
    pub(crate) fn seal(&self, clear: &[u8], place: &[u8]) -> Result<Vec<u8>, BoxError> {
        let key = self.seals.as_ref().ok_or("no sealing key is configured")?;
        let mut nonce = [0; NONCE];
        SysRng.try_fill_bytes(&mut nonce)?;
        let mut sealed = Vec::with_capacity(HEADER + NONCE + clear.len() + TAG);
        sealed.extend_from_slice(SEALED);
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        let payload = Payload {
            msg: clear,
            aad: &[&sealed, place].concat(),
        };
        let ciphertext = key.cipher().encrypt(&XNonce::from(nonce), payload);
        let ciphertext = ciphertext.map_err(|_| "too long to be sealed")?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    pub(crate) fn open(
        &self,
        sealed: &[u8],
        place: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cow<'static, str>> {
        let Some(rest) = sealed.strip_prefix(SEALED) else {
            return Err(
                "not sealed, although a key is configured: sign in again to replace it".into(),
            );
        };
        match rest.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(format!("sealed in version {version}").into()),
            None => return Err(DAMAGED.into()),
        }
        let (header, rest) = sealed.split_at_checked(HEADER).ok_or(DAMAGED)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(DAMAGED)?;
        let id = header.last_chunk::<ID>().ok_or(DAMAGED)?;
        let mut keys = self.seals.iter().chain(&self.opens);
        let Some(key) = keys.find(|key| key.id == *id) else {
            return Err(format!("sealed with another key, {}", Id(id)).into());
        };
        let payload = Payload {
            msg: ciphertext,
            aad: &[header, place].concat(),
        };
        let clear = key.cipher().decrypt(&XNonce::from(*nonce), payload);
        Ok(Zeroizing::new(clear.map_err(|_| DAMAGED)?))
    }
}

const DAMAGED: &str = "sealed, and damaged or changed since";

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &[u8] = b"canary-of-the-clear-text";

    fn sealer(key: u8) -> Sealer {
        let mut sealer = Sealer::default();
        sealer.seal_with(SealingKey::new([key; 32]));
        sealer
    }

    #[test]
    fn sealed_content_opens_and_has_a_new_nonce_each_time() {
        let sealer = sealer(7);
        for clear in [CANARY, b""] {
            let (one, other) = (
                sealer.seal(clear, b"").unwrap(),
                sealer.seal(clear, b"").unwrap(),
            );
            assert_eq!(*sealer.open(&one, b"").unwrap(), clear);
            assert_eq!(*sealer.open(&other, b"").unwrap(), clear);
            let nonce = |sealed: &[u8]| sealed[HEADER..HEADER + NONCE].to_vec();
            assert_ne!(nonce(&one), nonce(&other));
            assert_ne!(one[HEADER + NONCE..], other[HEADER + NONCE..]);
            assert_eq!(one.len(), HEADER + NONCE + clear.len() + TAG);
        }
    }

    #[test]
    fn flipped_bit_or_truncation_is_an_error() {
        let sealer = sealer(7);
        let sealed = sealer.seal(CANARY, b"").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(sealer.open(&flipped, b"").is_err(), "bit {bit} of {at}");
            }
            assert!(sealer.open(&sealed[..at], b"").is_err(), "cut at {at}");
        }
        let longer = [&sealed[..], b"x"].concat();
        assert!(sealer.open(&longer, b"").is_err());
    }

    /// A header with a matching key id does not open the content of another.
    #[test]
    fn header_is_associated_data() {
        let sealer = sealer(7);
        let sealed = sealer.seal(CANARY, b"").unwrap();
        let (nonce, ciphertext) = sealed[HEADER..].split_first_chunk::<NONCE>().unwrap();
        let cipher = SealingKey::new([7; 32]).cipher();
        let open = |aad: &[u8]| {
            let msg = ciphertext;
            cipher.decrypt(&XNonce::from(*nonce), Payload { msg, aad })
        };
        assert_eq!(open(&sealed[..HEADER]).unwrap(), CANARY);
        for at in 0..HEADER {
            let mut header = sealed[..HEADER].to_vec();
            header[at] ^= 1;
            open(&header).unwrap_err();
        }
        open(b"").unwrap_err();
    }

    /// Of version 1. A changed id would make existing files unreadable.
    #[test]
    fn key_id_is_stable_across_releases() {
        let id = |byte| Id(&SealingKey::new([byte; 32]).id).to_string();
        assert_eq!(id(7), "d3c7b0dd0e3b5710");
        assert_ne!(id(8), id(7));
    }

    #[test]
    fn key_from_base64_accepts_both_alphabets_and_checks_the_length() {
        let raw: [u8; 32] = std::array::from_fn(|at| 0xff - u8::try_from(at).unwrap());
        let id = SealingKey::new(raw).id;
        let standard = "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";
        let url_safe = standard.replace('/', "_").replace('+', "-");
        for text in [
            standard,
            standard.trim_end_matches('='),
            &url_safe,
            url_safe.trim_end_matches('='),
            &format!(" {standard}\n"),
        ] {
            assert_eq!(SealingKey::from_base64(text).unwrap().id, id, "{text}");
        }
        for (text, problem) in [
            ("", "0 bytes"),
            ("AAAA", "3 bytes"),
            (&format!("{standard}{standard}"), "not base64"),
            (&"A".repeat(44), "33 bytes"),
            ("canary!", "not base64"),
        ] {
            let error = SealingKey::from_base64(text).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(problem), "{shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn debug_output_shows_only_the_key_id() {
        let key = SealingKey::new(*b"canary-canary-canary-canary-cana");
        let shown = format!("{key:?} {key:#?}");
        assert!(shown.contains(&Id(&key.id).to_string()), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(!shown.contains("99, 97"), "{shown}");
    }
}
