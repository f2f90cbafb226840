//! The tests that need another program, with a folder for each program.
//!
//! Tests whose program is missing are ignored, and the reason is printed once. With `CI` and
//! `BEARER_AUTH_E2E=required` in the environment, a missing program is a failure.

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
mod harness;
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

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        #[cfg(feature = "login")]
        chromium::tests(),
        #[cfg(feature = "reqwest")]
        glewlwyd::tests(),
        #[cfg(all(feature = "keyring", target_os = "linux"))]
        keyring::tests(),
        oidc_provider::tests(),
        #[cfg(feature = "redis")]
        redis::tests(),
    ];
    harness::main(&tests.concat())
}
