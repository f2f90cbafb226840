//! [`BearerAuthLayer`], and its builder.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode};
use tower_layer::Layer;

use super::{
    decide::{Core, RenewOn, Rules, SharedCore},
    resend::{InMemory, ResendPolicy},
    service::BearerAuth,
    target::Apis,
};
use crate::{cache::TokenCache, error::ConfigError};

/// Puts a token on each request to an API, and replaces the token when the API rejects it.
///
/// One value serves clients of all kinds; clones share one [`TokenCache`]:
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
/// The layer does not see redirects that the client below it follows.
///
/// - Give reqwest [`redirect_policy`](Self::redirect_policy): it keeps redirects within the API.
///   **Without it, a token can leak**: reqwest 0.13.5 removes `Authorization` from the request to
///   another host, but sends it again if *that* host redirects within itself. It never removes a
///   [header of another name](crate::TokenResponseBuilder::header_name), and it sends the token to every
///   path of the API's host.
/// - Put tower-http's `FollowRedirect` outside, around the layer, which then decides about each redirect.
///   Below the layer it leaks like reqwest (since 0.7, without the first fault), or more, depending on its
///   policy. The layer would also take another host's 401 for the API's, which costs as many token
///   requests as a route of the API that always answers 401.
#[derive(Clone)]
pub struct BearerAuthLayer<P = InMemory> {
    core: SharedCore,
    resend: P,
}

impl BearerAuthLayer {
    /// Returns a layer for the API at `base_url`. Requests with its scheme, host and port, and a path
    /// that is its path or below it, get the token. All other requests pass unchanged. Short for
    /// `builder(tokens).api(base_url).build()`.
    ///
    /// If your API answers 401 and [`TokenCache::status`] shows that no token was requested, the
    /// request's URL is not below `base_url`.
    ///
    /// # Errors
    ///
    /// Those of [`build`](BearerAuthLayerBuilder::build).
    pub fn for_api(
        base_url: impl AsRef<str>,
        tokens: impl Into<TokenCache>,
    ) -> Result<Self, ConfigError> {
        Self::builder(tokens).api(base_url).build()
    }

    /// Returns a builder for a layer that gets its tokens from `tokens`: a
    /// [`TokenSource`](crate::TokenSource), or a [`TokenCache`] that several layers share.
    ///
    /// ```
    /// use bearer_auth::{BearerAuthLayer, StaticToken, resend};
    ///
    /// let auth = BearerAuthLayer::builder(StaticToken::new("token"))
    ///     .api("https://api.example.com/v1/")
    ///     .api("https://files.example.com/")
    ///     .resend(resend::Off)
    ///     .build()?;
    /// # Ok::<(), bearer_auth::ConfigError>(())
    /// ```
    pub fn builder(tokens: impl Into<TokenCache>) -> BearerAuthLayerBuilder {
        BearerAuthLayerBuilder {
            cache: tokens.into(),
            apis: Vec::new(),
            relative_to: Vec::new(),
            renew_on: Vec::new(),
            resend: InMemory,
            resends: 0,
        }
    }
}

impl<P> BearerAuthLayer<P> {
    /// Returns a policy for `reqwest::ClientBuilder::redirect`: which redirects the client below this
    /// layer follows.
    ///
    /// For a request with a token, the client follows redirects to the layer's APIs only. Under
    /// [`any_api`](BearerAuthLayerBuilder::any_api), it stays within scheme, host and port. Any other
    /// redirect is returned as the response. For a request to another target, reqwest's default policy
    /// applies. The client follows at most 10 redirects.
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
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn redirect_policy(&self) -> reqwest::redirect::Policy {
        super::redirects::redirect_policy(self.core.first().0.rules.apis.clone())
    }

    /// Returns the token cache, for example to [`prefetch`](TokenCache::prefetch) a token at start-up.
    pub fn cache(&self) -> &TokenCache {
        &self.core.first().0.cache
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn core(&self) -> &Core {
        &self.core.mine().0
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn policy(&self) -> &P {
        &self.resend
    }
}

impl<S, P: Clone> Layer<S> for BearerAuthLayer<P> {
    type Service = BearerAuth<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerAuth::new(inner, Arc::clone(&self.core), self.resend.clone())
    }
}

impl<P: fmt::Debug> fmt::Debug for BearerAuthLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { cache, rules } = &self.core.first().0;
        f.debug_struct("BearerAuthLayer")
            .field("cache", cache)
            .field("rules", rules)
            .field("resend", &self.resend)
            .finish()
    }
}

/// The settings of a [`BearerAuthLayer`]: see [`BearerAuthLayer::builder`].
///
/// Set at least one API, or [`any_api`](Self::any_api).
#[must_use]
pub struct BearerAuthLayerBuilder<P = InMemory> {
    cache: TokenCache,
    apis: Vec<Api>,
    relative_to: Vec<String>,
    renew_on: Vec<Arc<RenewOn>>,
    resend: P,
    /// How often `resend` was given.
    resends: usize,
}

/// An API that gets the token, not validated yet.
enum Api {
    At { base_url: String, insecure: bool },
    Any { insecure: bool },
}

impl<P> BearerAuthLayerBuilder<P> {
    /// Adds the API at `base_url`: requests with its scheme, host and port, and a path that is its path
    /// or below it, get the token. Further calls add more APIs.
    ///
    /// `base_url` is `https`, or `http` on loopback. A request path with a `..` segment, an encoded `/`,
    /// `\` or `.`, or a backslash is not below any base path. If your API has such paths, use a `base_url`
    /// without a path.
    pub fn api(mut self, base_url: impl AsRef<str>) -> Self {
        self.apis.push(Api::At {
            base_url: base_url.as_ref().to_owned(),
            insecure: false,
        });
        self
    }

    /// Adds an API over plain `http`, for a mesh that encrypts the traffic itself. Anyone who can read the
    /// traffic can use the token.
    pub fn insecure_api(mut self, base_url: impl AsRef<str>) -> Self {
        self.apis.push(Api::At {
            base_url: base_url.as_ref().to_owned(),
            insecure: true,
        });
        self
    }

    /// Puts the token on every request, to any host: for a client that talks to one API only. Anyone who
    /// can make the client send a request to their own host gets the token. A request over plain `http`,
    /// except to loopback, is an error.
    pub fn any_api(mut self) -> Self {
        self.apis.push(Api::Any { insecure: false });
        self
    }

    /// Puts the token on every request, including those over plain `http`. Anyone who can read the traffic
    /// can use the token.
    pub fn insecure_any_api(mut self) -> Self {
        self.apis.push(Api::Any { insecure: true });
        self
    }

    /// Sets the base URL of requests without a host in their URI: those of a tonic client over this layer,
    /// or on a hyper `SendRequest`. By default such a request is an error, since its target is unknown.
    ///
    /// This setting allows no API. The base URL's scheme, host and port, with the request's path, have to
    /// be those of an allowed API. The base URL's own path is ignored.
    pub fn relative_to(mut self, base_url: impl AsRef<str>) -> Self {
        self.relative_to.push(base_url.as_ref().to_owned());
        self
    }

    /// Sets which responses reject the token. Defaults to 401 without any challenge, or with one for the
    /// token's scheme, unless its error has another cause than the token (`insufficient_scope`, for
    /// example).
    ///
    /// ```
    /// # use bearer_auth::{BearerAuthLayer, StaticToken};
    /// let auth = BearerAuthLayer::builder(StaticToken::new("t"))
    ///     .api("https://api.example.com/")
    ///     .renew_on(|status, _headers| status == 401 || status == 419)
    ///     .build()?;
    /// # Ok::<(), bearer_auth::ConfigError>(())
    /// ```
    pub fn renew_on(
        mut self,
        renew_on: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.renew_on.push(Arc::new(renew_on));
        self
    }

    /// Sets which requests are sent again, once, after the API has rejected the token: see
    /// [`resend`](crate::resend). Defaults to [`InMemory`].
    pub fn resend<Q: ResendPolicy>(self, policy: Q) -> BearerAuthLayerBuilder<Q> {
        BearerAuthLayerBuilder {
            cache: self.cache,
            apis: self.apis,
            relative_to: self.relative_to,
            renew_on: self.renew_on,
            resend: policy,
            resends: self.resends + 1,
        }
    }

    /// Validates the settings, and builds the layer. Does no I/O.
    ///
    /// # Errors
    ///
    /// A base URL is not an absolute `https` URL (`http` on loopback, or with
    /// [`insecure_api`](Self::insecure_api)), or has a query, a fragment, credentials or a `..` segment;
    /// no API is set, or one in addition to [`any_api`](Self::any_api); settings contradict each other; a
    /// setting is given twice.
    pub fn build(self) -> Result<BearerAuthLayer<P>, ConfigError> {
        let mut apis = apis(&self.apis)?;
        match &*self.relative_to {
            [] => {}
            [base_url] => apis.relative_to(base_url)?,
            _ => return Err(ConfigError::new("relative_to", "given twice; give it once")),
        }
        if self.resends > 1 {
            return Err(ConfigError::new("resend", "given twice; give it once"));
        }
        let mut renew_on = self.renew_on;
        let rule = renew_on.pop();
        if !renew_on.is_empty() {
            let problem = "given twice; combine both rules in one closure";
            return Err(ConfigError::new("renew_on", problem));
        }
        let core = Core {
            cache: self.cache,
            rules: Rules {
                apis,
                renew_on: rule,
            },
        };
        Ok(BearerAuthLayer {
            core: core.shared(),
            resend: self.resend,
        })
    }
}

fn apis(given: &[Api]) -> Result<Apis, ConfigError> {
    match given {
        [] => Err(ConfigError::new(
            "api",
            "not set; set the API that gets the token with `api(base_url)`",
        )),
        [Api::Any { insecure }] => Ok(Apis::any(*insecure)),
        given => {
            let mut apis = Apis::none();
            for api in given {
                match api {
                    Api::At { base_url, insecure } => apis.allow(base_url, *insecure)?,
                    Api::Any { .. } => {
                        let problem = "covers every API already; remove it to restrict the token to the \
                                       other APIs, or remove the others";
                        return Err(ConfigError::new("any_api", problem));
                    }
                }
            }
            Ok(apis)
        }
    }
}

/// Without the URLs, which may contain credentials before they are validated.
impl<P: fmt::Debug> fmt::Debug for BearerAuthLayerBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuthLayerBuilder")
            .field("cache", &self.cache)
            .field("resend", &self.resend)
            .finish_non_exhaustive()
    }
}
