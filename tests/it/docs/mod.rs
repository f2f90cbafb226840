//! What the documentation says is so.

mod conformance;
#[cfg(feature = "jwt")]
mod readme_providers;
