//! Signing a user in: the authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636).
//!
//! ```text
//! start ─► PendingLogin ─ url ─► the user's browser ─► the server's pages
//!                                                            │ redirect
//!                    Session ◄─ finish ◄─ the callback's URL ◄┘
//! ```
//!
//! Invariants:
//!
//! 1. The [`PendingLogin`] has everything that identifies a login: state, verifier, redirect URI, and the
//!    server it was sent to. All of it is made at the start.
//! 2. A login is used once: finishing consumes it.
//! 3. A callback that fails a check leads to no request.
//! 4. A code is sent once, whatever the outcome of the request (RFC 6749 §4.1.2).
//! 5. This crate never opens the authorization URL by itself (RFC 8252 §8.12).

mod authorization_code;
mod builder;
pub(crate) mod callback;
#[cfg(feature = "login")]
mod landing;
mod login;
#[cfg(feature = "login")]
mod loopback;
mod pending;
mod pkce;
mod start;

pub use self::{
    authorization_code::AuthorizationCode, builder::AuthorizationCodeBuilder, login::Login,
    pending::PendingLogin,
};
