//! Sessions: a user who has signed in, and the refresh token that goes on (RFC 6749 §6).

mod logout;
mod refresh;
mod state;
pub mod store;

pub use self::refresh::{RefreshToken, StoreError, StoreOperation};
