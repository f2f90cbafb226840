//! The layer with reqwest.

#[cfg(feature = "reqwest")]
mod client;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
