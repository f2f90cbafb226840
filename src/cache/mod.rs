//! [`TokenCache`]: caches and refreshes the token of one source.
//!
//! From bottom to top: `lifecycle` and `backoff` (pure decisions), `flight` (a token request in
//! flight), `state` (what the lock protects), `shared` (the cache itself), `fetch` (the task of a
//! flight), `acquire` (the request path), and the rest of the public API.

mod acquire;
mod backoff;
mod builder;
mod fetch;
mod flight;
mod keep_fresh;
mod keeper;
mod lifecycle;
mod shared;
mod state;
mod status;

pub(crate) use self::acquire::{Acquire, Pending};
pub use self::{
    builder::TokenCacheBuilder, keep_fresh::KeepFresh, shared::TokenCache, status::TokenStatus,
};

#[cfg(all(test, feature = "testing"))]
mod tests;
