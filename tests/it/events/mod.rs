//! What operators see.

mod log;
#[cfg(feature = "metrics")]
mod metrics;
