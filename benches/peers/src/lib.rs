//! Compares bearer-auth with its alternatives.
//!
//! All of it runs offline: tokens come from [`endpoint`], and requests go to a service that does nothing.
//! [`peers`] has a file for each alternative; [`time`] and [`load`] measure.

pub mod chart;
pub mod driving;
pub mod endpoint;
pub mod facts;
pub mod load;
pub mod peers;
pub mod table;
pub mod time;

/// Shared with the crate's own benchmarks, so that both measure in the same way.
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
#[path = "../../support/rounds.rs"]
pub mod rounds;
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
#[path = "../../support/stacks.rs"]
pub mod stacks;

/// Any error of a peer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Installs a crypto provider: this tree has two, so that rustls cannot choose by itself.
pub fn install_crypto() -> Result<(), BoxError> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a crypto provider is already installed".into())
}
