//! The npm package `oidc-provider`, on Node.js.

mod discovery;
#[cfg(feature = "seal")]
mod file_store;
#[cfg(feature = "redis")]
mod fleet;
#[cfg(feature = "reqwest")]
mod mtls;
mod tokens;
