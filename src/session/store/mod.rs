//! Stores for sessions: the trait [`TokenStore`], and the stores of this crate.

mod disk;
mod file;
#[cfg(feature = "keyring")]
mod keyring;
mod lock;
mod memory;
mod private_file;
#[cfg(feature = "seal")]
mod sealed;
mod token_store;

#[cfg(feature = "keyring")]
#[cfg_attr(docsrs, doc(cfg(feature = "keyring")))]
pub use self::keyring::KeyringStore;
#[cfg(feature = "redis")]
pub(crate) use self::sealed::Sealer;
#[cfg(feature = "seal")]
#[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
pub use self::sealed::SealingKey;
pub(crate) use self::token_store::{ErasedStore, OnStoreError};
pub use self::{
    file::FileStore,
    memory::MemoryStore,
    token_store::{BusyStore, Locked, LockedSession, StoreError, StoreOperation, TokenStore},
};
pub use super::stored::{DamagedSession, StoredSession};
