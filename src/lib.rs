//! stub

mod cache;
mod clock;
mod error;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use self::{
    cache::{KeepFresh, TokenCache, TokenCacheBuilder, TokenStatus},
    clock::Clock,
    error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, OAuthErrorCode},
    source::{
        FetchReason, SourceFn, StaticToken, TokenRequest, TokenResponse, TokenResponseBuilder,
        TokenSource, source_fn,
    },
    token::AccessToken,
};
