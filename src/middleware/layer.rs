//! [`BearerAuthLayer`]: all configuration.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tower_layer::Layer;

use super::{decide::Rules, resend::InMemory, service::BearerAuth, target::Apis};
use crate::{cache::TokenCache, error::ConfigError};

/// Puts a token on each request to an API, and renews it when the API refuses it.
///
/// One value for all kinds of clients; clones share one [`TokenCache`]:
///
/// - a tower [`Layer`] over any `Service<http::Request<B>, Response = http::Response<R>>`,
/// - the same over a `reqwest::Client`, which is a `Service<reqwest::Request>` (feature `reqwest`),
/// - a `reqwest_middleware::Middleware` (feature `reqwest-middleware`).
///
/// ```
/// use bearer_auth::{BearerAuthLayer, ClientCredentials};
/// use tower_layer::Layer as _;
///
/// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "secret").build()?;
/// let auth = BearerAuthLayer::for_api("https://api.example.com/", source)?;
///
/// let client = reqwest::Client::builder().redirect(auth.redirect_policy()).build()?;
/// let client = auth.layer(client);
/// # Ok::<(), bearer_auth::BoxError>(())
/// ```
///
/// # Redirects
///
/// A client that follows redirects does so below the layer, which sees nothing of it.
///
/// - Give reqwest [`redirect_policy`](Self::redirect_policy): then it stays with the API. **Without,
///   a token can leak**: reqwest 0.13.5 takes `Authorization` off the request to another host, and
///   has it again on the next one, to where *that* host redirects within itself. It never takes off a
///   [header of another name](crate::TokenResponseBuilder::header_name), and every path of the API's
///   host gets the token.
/// - tower-http's `FollowRedirect` belongs outside, around the layer, which then decides redirect by
///   redirect. Below the layer it does as reqwest does (since 0.7, without the first fault), or worse,
///   by its policy; and the layer takes another host's 401 for the API's, which costs token requests,
///   as many as a route of the API that always answers 401.
#[derive(Clone, Debug)]
pub struct BearerAuthLayer<P = InMemory> {
    cache: TokenCache,
    rules: Arc<Rules>,
    resend: P,
}

impl BearerAuthLayer {
    /// Requests to the API at `base_url` get the token: those with its scheme, host and port, and
    /// a path that is its path or below it. All others are passed on untouched.
    ///
    /// A path with a `..` segment, an encoded `/`, `\` or `.`, or a backslash is not below any base
    /// path; if your API has such paths, give the API's origin alone.
    ///
    /// If your API answers 401 and [`status`](TokenCache::status) shows that nobody has asked for a
    /// token, the request's URL is not below `base_url`.
    ///
    /// # Errors
    ///
    /// `base_url` is not an absolute `https` URL (`http` is for loopback), or has a query, a
    /// fragment or credentials in it.
    pub fn for_api(
        base_url: impl AsRef<str>,
        tokens: impl Into<TokenCache>,
    ) -> Result<Self, ConfigError> {
        let mut apis = Apis::none();
        apis.allow(base_url.as_ref(), false)?;
        Ok(Self::with(apis, tokens.into()))
    }

    /// As [`for_api`](Self::for_api), and the API may be one that speaks plain `http`: inside a
    /// mesh that encrypts by itself. Whoever can read the traffic can use the token.
    ///
    /// # Errors
    ///
    /// As [`for_api`](Self::for_api).
    pub fn insecure_for_api(
        base_url: impl AsRef<str>,
        tokens: impl Into<TokenCache>,
    ) -> Result<Self, ConfigError> {
        let mut apis = Apis::none();
        apis.allow(base_url.as_ref(), true)?;
        Ok(Self::with(apis, tokens.into()))
    }

    /// Every request gets the token, wherever it goes: for a client that talks to nobody else.
    /// Whoever can make it send a request to a host of his own gets the token. Requests over plain
    /// `http`, except to loopback, are refused with an error.
    pub fn any_api(tokens: impl Into<TokenCache>) -> Self {
        Self::with(Apis::any(), tokens.into())
    }

    fn with(apis: Apis, cache: TokenCache) -> Self {
        Self {
            cache,
            rules: Arc::new(Rules {
                apis,
                renew_on: None,
            }),
            resend: InMemory,
        }
    }
}

impl<P> BearerAuthLayer<P> {
    /// A further API that gets the same token.
    ///
    /// # Errors
    ///
    /// As [`for_api`](BearerAuthLayer::for_api).
    pub fn allow_api(mut self, base_url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.rules_mut().apis.allow(base_url.as_ref(), false)?;
        Ok(self)
    }

    /// What requests without a host in their URI are relative to: those of a tonic client over this
    /// layer, or on a hyper `SendRequest`. Without it they are an error, since nobody can tell where they
    /// go. It allows nothing by itself: the base URL's scheme, host and port, and the request's path
    /// (the base URL's does not count) have to be those of an allowed API.
    ///
    /// # Errors
    ///
    /// `base_url` is not an absolute URL, or has a query, a fragment or credentials in it.
    pub fn relative_to(mut self, base_url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.rules_mut().apis.relative_to(base_url.as_ref())?;
        Ok(self)
    }

    /// Under [`any_api`](BearerAuthLayer::any_api): requests over plain `http` get the token as
    /// well. Whoever can read the traffic can use it.
    pub fn insecure_allow_http(mut self) -> Self {
        self.rules_mut().apis.allow_plaintext();
        self
    }

    /// Which answers mean that the token is not good any more, in place of the default: 401 with a
    /// challenge for the token's scheme, or without any, unless it says that another token would
    /// not help (`insufficient_scope` and the like).
    ///
    /// ```
    /// # use bearer_auth::{BearerAuthLayer, StaticToken};
    /// # let auth = BearerAuthLayer::any_api(StaticToken::new("t"));
    /// let auth = auth.renew_on(|status, _headers| status == 401 || status == 419);
    /// ```
    pub fn renew_on(
        mut self,
        renew_on: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules_mut().renew_on = Some(Arc::new(renew_on));
        self
    }

    /// Which requests are sent again, once, after the API has refused the token: see
    /// [`resend`](crate::resend). Default: those whose body is in memory.
    pub fn resend<P2>(self, policy: P2) -> BearerAuthLayer<P2> {
        BearerAuthLayer {
            cache: self.cache,
            rules: self.rules,
            resend: policy,
        }
    }

    /// For `reqwest::ClientBuilder::redirect`: which redirects the client below this layer follows.
    ///
    /// A request that got a token is redirected to where tokens may go, and no further: to an API,
    /// by the same rule as requests. Any other redirect is not followed: it is the answer, for the
    /// caller to look at, or to follow with a request of its own. Under
    /// [`any_api`](BearerAuthLayer::any_api), what is followed stays within scheme, host and port.
    /// Requests to anybody else are redirected as by reqwest's own policy. All of them 10 times at
    /// most.
    ///
    /// Call it last: it knows the APIs allowed so far.
    ///
    /// ```
    /// # use bearer_auth::{BearerAuthLayer, StaticToken};
    /// # use tower_layer::Layer as _;
    /// # fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let auth = BearerAuthLayer::for_api("https://api.example.com/", StaticToken::new("t"))?;
    /// let client = reqwest::Client::builder()
    ///     .redirect(auth.redirect_policy())
    ///     .build()?;
    /// let client = auth.layer(client);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn redirect_policy(&self) -> reqwest::redirect::Policy {
        super::adapter::redirect_policy(self.rules.apis.clone())
    }

    /// The tokens: to [`prefetch`](TokenCache::prefetch) one at start-up, say.
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn policy(&self) -> &P {
        &self.resend
    }

    pub(crate) fn into_parts(self) -> (TokenCache, Rules, P) {
        (self.cache, Arc::unwrap_or_clone(self.rules), self.resend)
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }
}

impl<S, P: Clone> Layer<S> for BearerAuthLayer<P> {
    type Service = BearerAuth<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerAuth::new(inner, self.clone())
    }
}
