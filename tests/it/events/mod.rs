//! Events, logs and metrics, for operators.

mod log;
#[cfg(feature = "metrics")]
mod metrics;
