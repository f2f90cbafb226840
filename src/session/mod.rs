//! Sessions of signed-in users, which a refresh token continues (RFC 6749 §6).

mod logout;
mod refresh;
mod state;
pub mod store;
mod stored;

pub use self::refresh::Session;
