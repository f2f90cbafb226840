//! Pages to read.

/// What a request pays for its token.
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

/// A service asks in its own name: client credentials.
#[doc = include_str!("../docs/service.md")]
pub mod service {}

/// People sign in to a web application.
#[doc = include_str!("../docs/web-application.md")]
pub mod web_application {}

/// People sign in to a program on their machine.
#[doc = include_str!("../docs/program.md")]
pub mod program {}

/// Processes share tokens and sessions in Redis.
#[cfg(feature = "redis")]
#[doc = include_str!("../docs/redis.md")]
pub mod redis {}

/// What operators see: events, logs and metrics.
#[doc = include_str!("../docs/observability.md")]
pub mod observability {}

/// What callers see when something goes wrong.
#[doc = include_str!("../docs/faults.md")]
pub mod faults {}
