//! The layer as middleware of other stacks. (`reqwest::Client` needs none: it is a tower service.)

#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
