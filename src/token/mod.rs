//! The vocabulary of tokens: what a source is asked, what it answers, and what a request carries.

pub(crate) mod access_token;
pub(crate) mod challenge;
#[cfg(feature = "redis")]
mod key;
mod response;
mod source;

#[cfg(feature = "redis")]
pub use self::key::TokenKey;
#[cfg(feature = "redis")]
pub(crate) use self::key::{Digest, secrets};
pub use self::{
    access_token::AccessToken,
    response::{TokenResponse, TokenResponseBuilder},
    source::{FetchReason, TokenRequest, TokenSource},
};
pub(crate) use self::{
    access_token::TokenId, challenge::challenges, response::Arrived, source::ErasedSource,
};
