//! The tests that need another program: a folder for each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are tests, too"
)]

#[cfg(feature = "login")]
mod chromium;
#[cfg(feature = "reqwest")]
mod glewlwyd;
#[cfg(all(feature = "keyring", target_os = "linux"))]
mod keyring;
mod oidc_provider;
#[path = "../support/programs/mod.rs"]
mod programs;
#[cfg(feature = "redis")]
mod redis;
#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each binary uses its own part of it"
)]
mod support;
