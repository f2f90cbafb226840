//! Where tokens come from: [`TokenSource`], and one file for each grant.

use std::{fmt, future::Future, pin::Pin};

use super::{access_token::AccessToken, response::TokenResponse};
use crate::{cache::WeakTokenCache, error::Error};

/// A grant: something that can be asked for an access token.
///
/// The [`TokenCache`](crate::TokenCache) calls [`fetch`](Self::fetch) at most once at a time, in a
/// task of its own, and decides when to ask again after a failure. An implementation makes one
/// attempt and says in its [`Error`] whether another makes sense.
///
/// ```
/// use bearer_auth::{Error, TokenRequest, TokenResponse, TokenSource};
///
/// struct FromVault;
///
/// impl TokenSource for FromVault {
///     async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
///         TokenResponse::builder("the token")
///             .expires_in(std::time::Duration::from_secs(600))
///             .build()
///     }
/// }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// Asks for a token, once.
    ///
    /// # Errors
    ///
    /// Whatever keeps the source from having one. A source of your own makes its errors with
    /// [`Error::from_source`].
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenResponse, Error>> + Send;

    /// Called once for each cache that is made of this source: for a source that comes to know that
    /// its tokens are void (somebody signs out), and has them
    /// [forgotten](WeakTokenCache::forget). Default: nothing.
    fn attached(&self, cache: WeakTokenCache) {
        drop(cache);
    }
}

/// What a [`TokenSource`] is asked, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenRequest {
    /// Why a token is asked for.
    pub reason: FetchReason,
    /// The token that the API refused, when that is the reason: do not hand it out again.
    pub rejected: Option<AccessToken>,
    /// The token that the cache has, good or not.
    pub previous: Option<AccessToken>,
}

impl TokenRequest {
    /// A request for a first token.
    pub fn new() -> Self {
        Self::because(FetchReason::First)
    }

    pub(crate) fn because(reason: FetchReason) -> Self {
        Self {
            reason,
            rejected: None,
            previous: None,
        }
    }
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There is none.
    First,
    /// The one there is ages: requests go on with it meanwhile.
    Ageing,
    /// The one there is has expired, or is about to.
    Expired,
    /// The API refused the one there is.
    Rejected,
    /// [`TokenCache::refresh`](crate::TokenCache::refresh) was called.
    Manual,
}

impl<T: TokenSource> TokenSource for std::sync::Arc<T> {
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenResponse, Error>> + Send {
        (**self).fetch(request)
    }

    fn attached(&self, cache: WeakTokenCache) {
        (**self).attached(cache);
    }
}

/// [`TokenSource`] behind a pointer.
pub(crate) trait ErasedSource: Send + Sync + 'static {
    fn attach(&self, cache: WeakTokenCache);

    fn fetch_boxed(
        &self,
        request: TokenRequest,
    ) -> Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + '_>>;
}

impl<T: TokenSource> ErasedSource for T {
    fn attach(&self, cache: WeakTokenCache) {
        self.attached(cache);
    }

    fn fetch_boxed(
        &self,
        request: TokenRequest,
    ) -> Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + '_>> {
        Box::pin(self.fetch(request))
    }
}

impl fmt::Debug for dyn ErasedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}
