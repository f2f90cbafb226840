//! [`TokenKey`]: the name of a shared token.

use std::{collections::BTreeSet, fmt};

use sha2::{Digest as _, Sha256};

/// The key of a token in Redis: processes with the same key share one token.
///
/// Sources such as [`ClientCredentials`](crate::ClientCredentials::token_key) hash every setting that
/// distinguishes their tokens: server, client id, scopes, audience, resources, parameters and headers.
/// The client's secret or key is not part of the hash, so changing it keeps the key. SHA-256 reveals
/// the settings only to an attacker who can guess all of them.
///
/// A token bound to a client certificate (RFC 8705) works only with that certificate. If each machine
/// has its own certificate, add its thumbprint with [`subject`](Self::subject).
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// Creates a key for your own source. Include everything that distinguishes its tokens: sources
    /// with the same name share one token.
    pub fn named(name: impl AsRef<str>) -> Self {
        Digest::new("named").with(name.as_ref()).done()
    }

    /// Returns the key for one subject of the source, such as a user or a tenant.
    #[must_use]
    pub fn subject(self, subject: impl AsRef<str>) -> Self {
        let mut digest = Digest::new("subject");
        digest.hash.update(self.0);
        digest.with(subject.as_ref()).done()
    }
}

/// Formats the key in hexadecimal, as in Redis.
impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({self})")
    }
}

/// Hashes a list of texts with their lengths, so that different lists have different hashes.
pub(crate) struct Digest {
    hash: Sha256,
}

impl Digest {
    pub(crate) fn new(kind: &str) -> Self {
        let hash = Sha256::new_with_prefix(b"bearer-auth token key 1\0");
        Self { hash }.with(kind)
    }

    pub(crate) fn with(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
        self
    }

    /// Adds names and values, independent of their order.
    pub(crate) fn with_pairs<'a>(
        mut self,
        pairs: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let pairs: BTreeSet<_> = pairs.collect();
        self.hash.update((pairs.len() as u64).to_be_bytes());
        let flat = pairs.into_iter();
        let flat = flat.flat_map(|(name, value)| [name.as_bytes(), value]);
        flat.fold(self, Self::bytes)
    }

    /// Adds a set of texts, independent of their order.
    pub(crate) fn with_all<'a>(mut self, texts: impl IntoIterator<Item = &'a String>) -> Self {
        let texts: BTreeSet<_> = texts.into_iter().collect();
        self.hash.update((texts.len() as u64).to_be_bytes());
        texts
            .into_iter()
            .fold(self, |digest, text| digest.with(text))
    }

    pub(crate) fn done(self) -> TokenKey {
        TokenKey(self.hash.finalize().into())
    }
}
