//! Where tokens come from: [`TokenSource`], and one file for each grant.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
};

use super::{access_token::AccessToken, response::TokenResponse};
use crate::error::Error;

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

    /// Called once for each cache that is built on this source. A source that learns that its
    /// tokens are void (its user signs out) keeps the handle and
    /// [forgets](WeakTokenCache::forget) them. Does nothing by default.
    fn on_attach(&self, cache: WeakTokenCache) {
        drop(cache);
    }
}

/// A handle to the [`TokenCache`](crate::TokenCache) that a source is attached to. It does not keep
/// the cache alive.
#[derive(Clone)]
pub struct WeakTokenCache(Weak<dyn Forget>);

/// A cache, as far as its source can see it.
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

    /// Calls [`TokenCache::forget`](crate::TokenCache::forget) if the cache still exists.
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
    /// The cached token is in its refresh window: requests go on with it meanwhile.
    ExpiresSoon,
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

    fn on_attach(&self, cache: WeakTokenCache) {
        (**self).on_attach(cache);
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
