//! What the benchmarks share: the things compared, and the way to compare them.
//!
//! Machines are noisy, and an absolute time says nothing about another one: every figure is a
//! ratio to something that was measured in the same moment.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_debug_implementations,
    unreachable_pub,
    reason = "benchmarks, each of which uses some of this"
)]

pub mod ratio;
pub mod rounds;
pub mod stacks;
pub mod table;
