//! Tokens from a closure ([`SourceFn`]), and a fixed token ([`StaticToken`]).

use std::{fmt, future::Future};

use secrecy::{ExposeSecret, SecretString};

use crate::error::Error;
use crate::token::{TokenRequest, TokenResponse, TokenSource};

/// Creates a [`TokenSource`] from a closure.
///
/// ```
/// use bearer_auth::{TokenCache, TokenResponse, source_fn};
///
/// let cache = TokenCache::new(source_fn(|_request| async {
///     let token = std::env::var("API_TOKEN").map_err(bearer_auth::Error::from_source)?;
///     TokenResponse::builder(token).build()
/// }));
/// ```
pub fn source_fn<F, Fut>(fetch: F) -> SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenResponse, Error>> + Send + 'static,
{
    SourceFn(fetch)
}

/// A [`TokenSource`] that calls a closure: see [`source_fn`].
#[derive(Clone)]
pub struct SourceFn<F>(F);

impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenResponse, Error>> + Send + 'static,
{
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenResponse, Error>> + Send {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFn")
    }
}

/// A fixed token that never expires. Use it for a token that is managed elsewhere.
#[derive(Clone, Debug)]
pub struct StaticToken(SecretString);

impl StaticToken {
    /// Creates a source that always returns `token`.
    pub fn new(token: impl Into<SecretString>) -> Self {
        Self(token.into())
    }
}

impl TokenSource for StaticToken {
    async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
        TokenResponse::builder(self.0.expose_secret()).build()
    }
}
