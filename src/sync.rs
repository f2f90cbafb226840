//! What the cache is made of where tasks meet: locks, channels, and the runtime.
//!
//! With `--cfg bearer_auth_model` it is a model checker's instead, which decides at each of these
//! places who goes on: `tests/model` tries thousands of such orders. Otherwise nothing but names.

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
