//! [`TokenSource`]: the trait of grants, and the request that a cache passes to it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use super::{access_token::AccessToken, response::TokenResponse};
use crate::error::Error;

/// A source of access tokens, such as a grant.
///
/// The [`TokenCache`](crate::TokenCache) calls [`fetch`](Self::fetch) in its own task, one call at a
/// time, and schedules retries. An implementation makes one attempt; its [`Error`] says whether a retry
/// makes sense.
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
    /// Requests a token, once.
    ///
    /// # Errors
    ///
    /// The reason why there is no token. Your own source creates its errors with
    /// [`Error::from_source`].
    fn fetch(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenResponse, Error>> + Send;

    /// Called once for each cache that is built with this source. Keep the handle if the source can
    /// invalidate its tokens, for example when the user signs out, and
    /// [forget](WeakTokenCache::forget) them then. Does nothing by default.
    fn on_attach(&self, cache: WeakTokenCache) {
        drop(cache);
    }
}

/// A weak handle to the [`TokenCache`](crate::TokenCache) of a source: it does not keep the cache alive.
#[derive(Clone)]
pub struct WeakTokenCache(Weak<dyn Forget>);

/// The part of a cache that a source can call.
pub(crate) trait Forget: Send + Sync {
    /// Drops the cached token, and ignores the result of a token request in flight.
    fn forget(self: Arc<Self>);
}

impl WeakTokenCache {
    pub(crate) fn new(cache: Weak<dyn Forget>) -> Self {
        Self(cache)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Calls [`TokenCache::forget`](crate::TokenCache::forget) unless the cache has been dropped.
    pub fn forget(&self) {
        if let Some(cache) = self.0.upgrade() {
            cache.forget();
        }
    }
}

impl fmt::Debug for WeakTokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakTokenCache")
    }
}

/// A request to a [`TokenSource`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The reason of the request.
    pub reason: FetchReason,
    /// The token that the API rejected, if that is the reason: do not return it again.
    pub rejected: Option<AccessToken>,
    /// The cached token, valid or not.
    pub previous: Option<AccessToken>,
}

impl TokenRequest {
    /// Creates a request for the first token.
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

/// The reason of a [`TokenRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There is no cached token.
    First,
    /// The cached token is in its refresh window, and serves requests meanwhile.
    ExpiresSoon,
    /// The cached token has expired, or is about to expire.
    Expired,
    /// The API rejected the cached token.
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

    fn on_attach(&self, cache: WeakTokenCache) {
        (**self).on_attach(cache);
    }
}

/// The object-safe form of [`TokenSource`].
pub(crate) trait ErasedSource: Send + Sync + 'static {
    fn attach(&self, cache: WeakTokenCache);

    fn fetch_boxed(
        &self,
        request: TokenRequest,
    ) -> Pin<Box<dyn Future<Output = Result<TokenResponse, Error>> + Send + '_>>;
}

impl<T: TokenSource> ErasedSource for T {
    fn attach(&self, cache: WeakTokenCache) {
        self.on_attach(cache);
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
