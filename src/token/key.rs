//! [`TokenKey`]: the name of what is shared.

use std::{collections::BTreeSet, fmt};

use sha2::{Digest as _, Sha256};

/// Names a token among all that share a Redis: processes with the same key share one token.
///
/// [`ClientCredentials::token_key`](crate::ClientCredentials::token_key) and its like make one of
/// everything that makes a token differ: the server, the client, scopes, audience, resources, further
/// parameters and headers. A secret that proves the client is not part of it, so that changing it
/// changes nothing here. It is a SHA-256 hash, which shows nothing of what went in but to somebody
/// who can guess all of it.
///
/// Tokens bound to a client's certificate (RFC 8705) are of use only with that certificate: where
/// machines have one each, add its thumbprint with [`subject`](Self::subject).
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// For a source of your own: the same name is the same token, so say all that makes it differ.
    pub fn named(name: impl AsRef<str>) -> Self {
        Digest::new("named").with(name.as_ref()).done()
    }

    /// The same for one of several that the source serves: a user, a tenant.
    #[must_use]
    pub fn subject(self, subject: impl AsRef<str>) -> Self {
        let mut digest = Digest::new("subject");
        digest.hash.update(self.0);
        digest.with(subject.as_ref()).done()
    }
}

/// In hexadecimal: how Redis shows it.
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

/// Hashes a list of texts, each behind its length, so that no two lists are hashed alike.
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

    /// Names and values, in whatever order they are.
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

    /// A set, in whatever order it is.
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
