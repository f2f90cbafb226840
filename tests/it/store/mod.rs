//! Sessions in files.

mod file;
mod file_processes;
#[cfg(feature = "seal")]
mod file_sealed;
mod file_session;
