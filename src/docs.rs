//! Pages to read.

/// What a request pays for its token.
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}

/// People sign in: from what your provider gave you to a session.
#[doc = include_str!("../docs/sign-in.md")]
pub mod sign_in {}
