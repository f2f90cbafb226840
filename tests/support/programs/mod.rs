//! Tests that need a program which is not there.

#[cfg(feature = "login")]
pub(crate) mod chromium;
#[cfg(feature = "reqwest")]
pub(crate) mod glewlwyd;
#[cfg(all(feature = "keyring", target_os = "linux"))]
pub(crate) mod keyring;
pub(crate) mod oidc_provider;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::env;

/// `None`, after a word about it; a failure where the environment variable `CI` is set.
pub(crate) fn skip<T>(message: &str) -> Option<T> {
    let ci = env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    assert!(!ci, "{message}");
    eprintln!("SKIPPED: {message}");
    None
}
