//! Token types: requests to a source, its responses, and the tokens on requests.

pub(crate) mod access_token;
pub(crate) mod challenge;
#[cfg(feature = "redis")]
mod key;
mod lifetime;
mod response;
mod source;

#[cfg(feature = "redis")]
pub(crate) use self::key::Digest;
#[cfg(feature = "redis")]
pub use self::key::TokenKey;
pub use self::{
    access_token::AccessToken,
    response::{TokenResponse, TokenResponseBuilder},
    source::{FetchReason, TokenRequest, TokenSource, WeakTokenCache},
};
pub(crate) use self::{
    access_token::TokenId,
    challenge::challenges,
    lifetime::max_refresh_window,
    source::{ErasedSource, Forget},
};
