//! [`SharedRedis`]: what processes share, and how it is kept.

use std::{fmt, time::Duration};

use super::{
    client::RedisClient,
    entry::{Entry, Settings},
    store::RedisStore,
};
use crate::{session::store::SealingKey, token::TokenKey};

/// Redis or Valkey, as a place that processes share: see [the module](super).
///
/// Clones share a connection. A new value does no I/O; it connects when a token is due.
#[derive(Clone)]
pub struct SharedRedis(Settings);

impl SharedRedis {
    /// Encrypts and authenticates values with `key` (XChaCha20-Poly1305): a reader of Redis sees no
    /// token, and a writer cannot make one. All processes need the key.
    pub fn sealed(client: impl Into<RedisClient>, key: SealingKey) -> Self {
        Self(Settings::new(client.into(), Some(key)))
    }

    /// Keeps values in clear text: a reader of Redis, its backups or its traffic has the tokens.
    pub fn plain_text(client: impl Into<RedisClient>) -> Self {
        Self(Settings::new(client.into(), None))
    }

    /// Adds a key that opens values only, while a sealing key is being replaced: first give the new
    /// key to all processes here, then [seal](Self::sealed) with the new one and give the old one here,
    /// then leave the old one out.
    #[must_use]
    pub fn with_previous_key(mut self, key: SealingKey) -> Self {
        self.0.sealer.open_with(key);
        self
    }

    /// Sets how the names of keys begin, for instance by environment. Defaults to `bearer-auth`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        // The braces are for the slot of a cluster.
        self.0.prefix = prefix.as_ref().replace(['{', '}'], "_").into();
        self
    }

    /// Sets how long a process that has died keeps the others waiting. Defaults to 10 s; at least
    /// 100 ms. A live holder extends its lease three times in that time.
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
    /// that, its user has to sign in again. By default sessions stay forever, so that those of users
    /// who never sign out remain. Make it longer than unused refresh tokens live.
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
