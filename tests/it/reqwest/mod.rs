//! The layer over `reqwest` and `reqwest-middleware`.

#[cfg(feature = "reqwest")]
mod client;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
