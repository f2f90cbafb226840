//! The tests that need no other program than cargo's own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, too"
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
#[cfg(feature = "redis")]
mod fleet_keys;
mod grpc;
mod layer;
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
    reason = "each binary uses its own part of it"
)]
mod support;
