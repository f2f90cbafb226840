//! [`MemoryStore`]: a session that ends with the process.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::token_store::{Locked, LockedSession, TokenStore};
use crate::{error::BoxError, session::stored::StoredSession};

/// A store in memory, the default. Clones share one session.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Option<StoredSession>>>);

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl TokenStore for MemoryStore {
    type Locked = Locked;

    async fn lock(&self) -> Result<Locked, BoxError> {
        let locked = Arc::clone(&self.0).lock_owned().await;
        Ok(Locked::new(LockedMemory(locked)))
    }
}

struct LockedMemory(OwnedMutexGuard<Option<StoredSession>>);

impl LockedSession for LockedMemory {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        Ok(self.0.clone())
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        *self.0 = session.cloned();
        Ok(())
    }
}
