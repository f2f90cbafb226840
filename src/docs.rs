//! Pages to read.

/// What a request pays for its token.
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}
