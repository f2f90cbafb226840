//! Sessions: a user who has signed in, and the refresh token that continues it (RFC 6749 §6).

mod logout;
mod refresh;
mod state;
pub mod store;
mod stored;

pub use self::refresh::Session;
