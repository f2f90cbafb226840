//! [`SharedRedis`]: the configuration of values that processes share.

use std::{fmt, time::Duration};

use super::{
    client::RedisClient,
    entry::{Entry, Settings},
    store::RedisStore,
};
use crate::{session::store::SealingKey, token::TokenKey};

/// Redis or Valkey, with the settings for shared tokens and sessions: see [the module](super).
///
/// Clones share a connection, which is opened when a token is due.
#[derive(Clone)]
pub struct SharedRedis(Settings);

impl SharedRedis {
    /// Returns settings that encrypt and authenticate values with `key` (XChaCha20-Poly1305): a reader of
    /// Redis sees no token, and a writer cannot forge one. All processes need the same key.
    pub fn sealed(client: impl Into<RedisClient>, key: SealingKey) -> Self {
        Self(Settings::new(client.into(), Some(key)))
    }

    /// Returns settings that keep values in clear text: a reader of Redis, its backups or its traffic has
    /// the tokens.
    pub fn plain_text(client: impl Into<RedisClient>) -> Self {
        Self(Settings::new(client.into(), None))
    }

    /// Adds a key that opens values but does not seal them. To replace a sealing key, in three rollouts:
    /// add the new key here; [seal](Self::sealed) with the new key and add the old one here; remove the
    /// old key.
    #[must_use]
    pub fn with_previous_key(mut self, key: SealingKey) -> Self {
        self.0.sealer.open_with(key);
        self
    }

    /// Sets the prefix of keys in Redis, for example one for each environment. Defaults to
    /// `bearer-auth`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        // Braces select the slot in a cluster.
        self.0.prefix = prefix.as_ref().replace(['{', '}'], "_").into();
        self
    }

    /// Sets how long a lease lasts, and so how long other processes wait for a holder that was killed.
    /// Defaults to 10 s; at least 100 ms. A live holder extends its lease three times in that time.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.0.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// Sets how long Redis may take to answer before it counts as down. Defaults to 500 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// Sets how long an unused session stays in Redis; each token request starts the time again. After
    /// that, the user has to sign in again. By default sessions do not expire: those of users who never
    /// sign out remain. Use more than the lifetime of an unused refresh token.
    #[must_use]
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.0.session_ttl = Some(ttl);
        self
    }

    /// Returns the store for the session named `key`, for
    /// [`AuthorizationCode::with_store`](crate::AuthorizationCode::with_store).
    pub fn store(&self, key: TokenKey) -> RedisStore {
        RedisStore::new(self.entry(&key))
    }

    pub(super) fn entry(&self, key: &TokenKey) -> Entry {
        self.0.entry(key)
    }
}

impl fmt::Debug for SharedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedRedis").field(&self.0).finish()
    }
}
