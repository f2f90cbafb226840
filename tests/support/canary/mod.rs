//! Secrets that can be recognised, and what collects all that is said.

pub(crate) mod canaries;
pub(crate) mod rig;
pub(crate) mod watch;
