//! The layer in stacks that are no tower services. (`reqwest::Client` is one, and needs no adapter.)

#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
