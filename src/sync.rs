//! The locks, atomics, channels and runtime of the cache.
//!
//! With `--cfg bearer_auth_model` they are those of a model checker, which decides at each use which
//! task runs next: `tests/model` explores thousands of schedules. Otherwise this file only re-exports.

#[cfg(not(bearer_auth_model))]
pub(crate) use {
    arc_swap::ArcSwap,
    std::sync::{Mutex, MutexGuard, atomic::AtomicBool},
    tokio::{
        runtime::Handle,
        sync::{Notify, watch},
        task::AbortHandle,
    },
};

#[cfg(bearer_auth_model)]
mod model;
#[cfg(bearer_auth_model)]
pub use self::model::{
    AbortHandle, ArcSwap, AtomicBool, Crash, Handle, Mutex, MutexGuard, NoRuntime, Notify, watch,
};
