//! [`MemoryStore`]: a session that ends with the process.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{LockedSession, Session, TokenStore};
use crate::error::BoxError;

/// Keeps the session in memory: the default. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Option<Session>>>);

impl MemoryStore {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }
}

impl TokenStore for MemoryStore {
    type Locked = OwnedMutexGuard<Option<Session>>;

    async fn lock(&self) -> Result<Self::Locked, BoxError> {
        Ok(Arc::clone(&self.0).lock_owned().await)
    }
}

impl LockedSession for OwnedMutexGuard<Option<Session>> {
    async fn load(&mut self) -> Result<Option<Session>, BoxError> {
        Ok((**self).clone())
    }

    async fn save(&mut self, session: Option<&Session>) -> Result<(), BoxError> {
        **self = session.cloned();
        Ok(())
    }
}
