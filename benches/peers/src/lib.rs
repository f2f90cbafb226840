//! bearer-auth beside what a user would pick instead.
//!
//! Everything runs offline: tokens come from [`endpoint`], requests end in a service that does
//! nothing. What is compared is in [`peers`], one file each; how, in [`time`] and [`load`].

pub mod chart;
pub mod driving;
pub mod endpoint;
pub mod facts;
pub mod load;
pub mod peers;
pub mod table;
pub mod time;

/// Of the crate's own benchmarks: what the two have in common is measured in the same way.
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
#[path = "../../support/rounds.rs"]
pub mod rounds;
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
#[path = "../../support/stacks.rs"]
pub mod stacks;

/// What can go wrong on the way to a token.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Two of rustls's providers are in this tree, so that it cannot choose by itself.
pub fn install_crypto() -> Result<(), BoxError> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "somebody was faster".into())
}
