//! Helpers that the test binaries share.

pub(crate) mod alone;
#[cfg(feature = "full")]
pub(crate) mod canary;
pub(crate) mod errors;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod sessions;
#[cfg(feature = "reqwest")]
pub(crate) mod tls;
pub(crate) mod tokens;
