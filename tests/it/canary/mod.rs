//! Canaries: recognizable secrets in every place that takes one. The tests search all output for them.
//!
//! - [canaries]: the secrets, and the search through all encodings.
//! - [watch]: collects the output: `tracing` and `log` at TRACE from all targets, with spans and
//!   fields; `metrics`; panic messages; `Debug`, `Display` and causes of the values that a test shows.
//! - [types]: every public type. The test reads the sources, so that no type is missing.
//! - [grants], [logins], [clients]: over real sockets, HTTP/1 and HTTP/2, with TLS and without, in
//!   success and in every failure, with servers that echo everything.
//! - [panics], [stores], and [processes] for tests with an environment of their own: a proxy's
//!   password, a browser.
//!
//! Known exposures, each pinned by a test:
//!
//! - the client id, only in `Debug` of configurations (RFC 6749 §2.2: it is not a secret);
//! - an error *code* or a *scope* with a secret in it, if the server sends such a one
//!   (`error_code_and_scope_are_shown_even_if_they_are_secrets`);
//! - the caller's URL of the API, in errors and logs of the inner HTTP client
//!   (`errors_of_the_inner_client_contain_the_caller_s_url`);
//! - a login's URL with its state, to the browser and in the log of the crate `webbrowser` at `debug`
//!   (`open_browser_exposes_only_the_url_of_the_login`);
//! - both tokens in an unsealed session file, which only its owner can read (mode 0600).
//!
//! Errors of the application's own sources, stores and HTTP clients appear in `Debug` and causes of an
//! error, not in `Display` and logs, as the documentation of `Error` says. Panic messages appear in
//! neither. Not tested: that memory is wiped, hyper's log (`--cfg hyper_unstable_tracing`), Windows and
//! macOS.

mod canaries;
mod clients;
mod grants;
mod logins;
mod panics;
#[cfg(target_os = "linux")]
mod processes;
mod stores;
mod types;
