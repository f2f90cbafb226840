//! The integration tests that need no external program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test helpers"
)]

mod architecture;
mod cache;
#[cfg(feature = "full")]
mod canary;
mod client;
mod conformance;
mod docs;
mod events;
#[cfg(feature = "reqwest")]
mod faults;
mod grpc;
mod layer;
mod no_runtime;
#[cfg(feature = "reqwest-middleware")]
mod origins;
mod reqwest;
mod sign_in;
mod store;
#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test binary uses a part of it"
)]
mod support;
#[cfg(feature = "redis")]
mod token_keys;
