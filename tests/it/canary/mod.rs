//! Canaries: secrets that can be recognised, put into every place that takes one; and then everything
//! that is said by anybody is looked through for them.
//!
//! - [canaries]: the secrets, and how a text is searched, whatever they are wrapped in.
//! - [watch]: what collects: `tracing` and `log` at TRACE from all targets, with spans and fields;
//!   `metrics`; panic messages; `Debug`, `Display` and causes of what a test shows.
//! - [types]: every public type. The sources are read for them, so that none is forgotten.
//! - [grants], [logins], [clients]: over real sockets, HTTP/1 and HTTP/2, with TLS and without, in
//!   success and in every failure, with servers that say back all that they were told.
//! - [panics], [stores], and [processes] for what needs an environment of its own: a proxy's password,
//!   a browser, a keyring.
//!
//! What is shown although it may be a secret, each pinned by a test that fails when it is not so any
//! more:
//!
//! - the client's id, in `Debug` of configurations and nowhere else (RFC 6749 §2.2: it is no secret);
//! - an error *code* and a *scope* that a server has put a secret into
//!   (`a_server_that_makes_a_secret_its_error_code_or_its_scope_shows_it`);
//! - the caller's own URLs of the API, by the client below the layer
//!   (`what_the_client_below_says_of_the_caller_s_url_is_its_own`);
//! - a login's URL, by the crate `webbrowser` at `debug`, and to the browser, state and all
//!   (`opening_a_browser_shows_a_login_s_url_and_no_more`);
//! - the two tokens in a session's file that is not sealed, which is its owner's alone (mode 0600).
//!
//! What a source, a store or an HTTP client of the program's own says in its errors and panics is its
//! own affair, as `Error`'s documentation says: `Display` and logs do not have it, `Debug` and causes
//! of an error do, and neither has the words of a panic. That memory is wiped is not shown here, nor
//! can it be. Neither hyper (`--cfg hyper_unstable_tracing`) nor Windows and macOS were watched.
//!
//! That a leak is found was tried by making some. Each of these makes a test here fail:
//!
//! - in `Debug`: the secret of `AccessToken`, `TokenResponse`, `StaticToken`, `Session`, `Login`,
//!   `SealingKey` (as bytes), `ReqwestClient`'s identity, a client's secret, a claim, a parameter, an
//!   unchecked issuer, the body of `Answer`, headers of `Recorded`, clients of `MockIdpBuilder`, an
//!   error's description; queries of a redirect URI and of a token endpoint's URL; a public type that
//!   [types] does not show;
//! - in errors: the text of a URL, of a PEM file, of a body, an error's description, what serde says of
//!   a session, of a saved login, of metadata, of a pushed request's answer, a callback's state, the
//!   URL that reqwest or a tower service puts in, the words of a panic;
//! - in logs and metrics: the form of a token request, a description as field or as label, reqwest's
//!   `connection_verbose`, a session on its way to the keyring; a header that is not `sensitive` (of
//!   the token, of Basic, of the caller's); the verifier in a login's URL; a callback's URL in a page;
//! - in files: 0644, 0640 for the lock, 0755 for the directory, a copy in clear beside what is sealed;
//! - userinfo let pass; a listener's panic let pass;
//! - of the test itself: any of the collectors not installed, `log` at WARN, any of the encodings not
//!   undone, or none inside of another.

mod canaries;
mod clients;
mod grants;
mod logins;
mod panics;
#[cfg(target_os = "linux")]
mod processes;
mod stores;
mod types;
