//! The services that the benchmarks compare, and how they compare them.
//!
//! Machines are noisy, and absolute times differ between them. Each figure is therefore a ratio to
//! another one that was measured at the same time.
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
