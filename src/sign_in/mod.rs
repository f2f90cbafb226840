//! A person signs in: the authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636).
//!
//! ```text
//! start ─► PendingLogin ─ url ─► the person's browser ─► the server's pages
//!                                                            │ redirect
//!                   Session ◄─ finish ◄─ the callback's URL ◄┘
//! ```
//!
//! Invariants: what a login needs to be told from any other (state, verifier, redirect URI, the
//! server it went to) is made at its start, and is all in its [`PendingLogin`]; it is used once,
//! since finishing consumes it. No callback that fails a check leads to a request. A code is sent
//! once, whatever becomes of the request (RFC 6749 §4.1.2). This crate never opens the
//! authorization URL by itself (RFC 8252 §8.12).

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
