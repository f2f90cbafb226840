//! Recognizable secrets, servers that send them, and the collection of all output.

pub(crate) mod canaries;
pub(crate) mod rig;
pub(crate) mod watch;
