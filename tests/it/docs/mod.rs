//! The documentation is complete and correct.

mod conformance;
mod features;
mod links;
#[cfg(feature = "jwt")]
mod readme_providers;
