//! [`BearerAuthLayer`], and its configuration.

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
/// A client that follows redirects does so below the layer, which does not see it.
///
/// - Give reqwest [`redirect_policy`](Self::redirect_policy): it keeps redirects within the API.
///   **Without it, a token can leak**: reqwest 0.13.5 removes `Authorization` from the request to
///   another host, and sends it again on the next hop, to where *that* host redirects within itself. It
///   never removes a [header of another name](crate::TokenResponseBuilder::header_name), and every path
///   of the API's host gets the token.
/// - Put tower-http's `FollowRedirect` outside, around the layer, which then decides redirect by
///   redirect. Below the layer it does what reqwest does (since 0.7, without the first fault), or worse,
///   depending on its policy. The layer then also takes another host's 401 for the API's, which costs as
///   many token requests as a route of the API that always answers 401.
#[derive(Clone)]
pub struct BearerAuthLayer<P = InMemory> {
    core: SharedCore,
    resend: P,
}

impl BearerAuthLayer {
    /// Puts the token on requests to the API at `base_url`: those with its scheme, host and port, and
    /// a path that is its path or below it. All other requests pass untouched. Short for
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

    /// Starts the configuration of a layer that gets its tokens from `tokens`: a
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
        }
    }
}

impl<P> BearerAuthLayer<P> {
    /// Returns a policy for `reqwest::ClientBuilder::redirect`, which decides which redirects the client
    /// below this layer follows.
    ///
    /// A request with a token is redirected to where tokens may go, and no further: to an API, by the
    /// same rule as requests. Any other redirect is not followed: it is the response, for the caller to
    /// look at, or to follow with a request of its own. Under
    /// [`any_api`](BearerAuthLayerBuilder::any_api), redirects are followed within scheme, host and port.
    /// Requests to other targets are redirected by reqwest's own policy. At most 10 redirects are
    /// followed.
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

    /// Returns the cache of the tokens: to [`prefetch`](TokenCache::prefetch) one at start-up, for
    /// example.
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

/// The configuration of a [`BearerAuthLayer`]: see [`BearerAuthLayer::builder`].
///
/// Name at least one API, or [any](Self::any_api).
#[must_use]
pub struct BearerAuthLayerBuilder<P = InMemory> {
    cache: TokenCache,
    apis: Vec<Api>,
    relative_to: Vec<String>,
    renew_on: Vec<Arc<RenewOn>>,
    resend: P,
}

/// Which requests get the token, not checked yet.
enum Api {
    At { base_url: String, insecure: bool },
    Any { insecure: bool },
}

impl<P> BearerAuthLayerBuilder<P> {
    /// Adds the API at `base_url`: requests with its scheme, host and port, and a path that is its path
    /// or below it, get the token. Further calls add more APIs.
    ///
    /// `base_url` is `https`, or `http` on loopback. A request path with a `..` segment, an encoded `/`,
    /// `\` or `.`, or a backslash is not below any base path; if your API has such paths, give the API's
    /// origin alone.
    pub fn api(mut self, base_url: impl AsRef<str>) -> Self {
        self.apis.push(Api::At {
            base_url: base_url.as_ref().to_owned(),
            insecure: false,
        });
        self
    }

    /// Adds an API that speaks plain `http`: inside a mesh that encrypts by itself. Anyone who can read
    /// the traffic can use the token.
    pub fn insecure_api(mut self, base_url: impl AsRef<str>) -> Self {
        self.apis.push(Api::At {
            base_url: base_url.as_ref().to_owned(),
            insecure: true,
        });
        self
    }

    /// Puts the token on every request, wherever it goes: for a client that talks to one API only.
    /// Anyone who can make it send a request to a host of their own gets the token. Requests over plain
    /// `http`, except to loopback, are refused with an error.
    pub fn any_api(mut self) -> Self {
        self.apis.push(Api::Any { insecure: false });
        self
    }

    /// Puts the token on every request, those over plain `http` included. Anyone who can read the traffic
    /// can use the token.
    pub fn insecure_any_api(mut self) -> Self {
        self.apis.push(Api::Any { insecure: true });
        self
    }

    /// Sets what requests without a host in their URI are relative to: those of a tonic client over this
    /// layer, or on a hyper `SendRequest`. Without it they are an error, since their target is unknown.
    ///
    /// It allows nothing by itself: the base URL's scheme, host and port, and the request's path (the
    /// base URL's path does not count) have to be those of an allowed API.
    pub fn relative_to(mut self, base_url: impl AsRef<str>) -> Self {
        self.relative_to.push(base_url.as_ref().to_owned());
        self
    }

    /// Sets which responses mean that the token was rejected. By default: 401 with a challenge for the
    /// token's scheme, or without any challenge, unless it says that another token would not help
    /// (`insufficient_scope` and the like).
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
        }
    }

    /// Checks everything. Does no I/O.
    ///
    /// # Errors
    ///
    /// A base URL is not an absolute `https` URL (`http` on loopback, or with
    /// [`insecure_api`](Self::insecure_api)), or has a query, a fragment, credentials or a `..` segment;
    /// no API is named, or one beside [any](Self::any_api); a setting contradicts another, or is given
    /// twice.
    pub fn build(self) -> Result<BearerAuthLayer<P>, ConfigError> {
        let mut apis = apis(&self.apis)?;
        match &*self.relative_to {
            [] => {}
            [base_url] => apis.relative_to(base_url)?,
            _ => return Err(ConfigError::new("relative_to", "given twice; give it once")),
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
            "none; name the API that gets the token with `api(base_url)`",
        )),
        [Api::Any { insecure }] => Ok(Apis::any(*insecure)),
        given => {
            let mut apis = Apis::none();
            for api in given {
                match api {
                    Api::At { base_url, insecure } => apis.allow(base_url, *insecure)?,
                    Api::Any { .. } => {
                        let problem = "already covers every API; leave it out to restrict the token to \
                                       the others that are named, or name no other";
                        return Err(ConfigError::new("any_api", problem));
                    }
                }
            }
            Ok(apis)
        }
    }
}

/// Without the URLs, which have not been checked for credentials yet.
impl<P: fmt::Debug> fmt::Debug for BearerAuthLayerBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuthLayerBuilder")
            .field("cache", &self.cache)
            .field("resend", &self.resend)
            .finish_non_exhaustive()
    }
}
