//! The layer for stacks that are not tower services. (`reqwest::Client` is one, and needs no adapter.)

#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
