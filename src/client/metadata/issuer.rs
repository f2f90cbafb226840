//! [`Issuer`]: an authorization server by its issuer identifier, and the cache of its metadata.
//!
//! Invariants:
//!
//! - At most one metadata request is in flight. Every waiter gets its result.
//! - An old document serves until a newer one arrives, so a failed refresh is no error. One caller
//!   waits for the refresh, for [`REFRESH_TIMEOUT`] at most; all others use the old document.
//! - Every wait has a limit, independent of the HTTP client.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::document::Metadata;
use crate::{
    client::http::{DynHttpClient, MAX_WAIT, exchange, limited},
    clock::{Clock, Moment},
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
};

/// The default of [`Issuer::max_age`].
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// The time between two attempts to refresh the metadata.
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// How long a caller waits for a refresh while an old document exists.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// An authorization server, by its issuer identifier (RFC 8414 §2). Its metadata contain the endpoints
/// and the supported authentication methods.
///
/// A string converts into an issuer: `ClientCredentials::discover("https://idp.example", …)`. The
/// identifier must equal `issuer` of the metadata verbatim, including a `/` at its end (§3.3).
///
/// The first token request fetches the metadata, once for all waiting callers. After a 404, it tries
/// the next of these URLs:
///
/// 1. `/.well-known/oauth-authorization-server` *before* the issuer's path (§3.1),
/// 2. `/.well-known/openid-configuration` before the path,
/// 3. the same after the path (OpenID Connect Discovery §4).
///
/// The metadata are cached for [an hour](Self::max_age). If they cannot be refreshed then, the old ones
/// stay in use. Clones share them.
///
/// Some servers publish their metadata elsewhere, by design:
///
/// ```
/// use bearer_auth::Issuer;
///
/// // Entra ID for users of any tenant: the metadata's issuer is a pattern.
/// let entra = Issuer::new("https://login.microsoftonline.com/{tenantid}/v2.0")
///     .metadata_url("https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration");
/// // Azure AD B2C: the metadata belong to a policy, the issuer to the tenant.
/// let b2c = Issuer::new("https://contoso.b2clogin.com/11111111-2222-3333-4444-555555555555/v2.0/")
///     .metadata_url("https://contoso.b2clogin.com/contoso.onmicrosoft.com/B2C_1_signin/v2.0/.well-known/openid-configuration");
/// ```
#[derive(Clone)]
#[must_use]
pub struct Issuer {
    name: String,
    metadata_url: Option<String>,
    max_age: Duration,
    assertions_to_endpoint: bool,
    cache: Arc<MetadataCache>,
}

#[derive(Default)]
struct MetadataCache {
    cached: std::sync::Mutex<Cached>,
    /// Locked by the caller that fetches the first document. Contains the last failure of that.
    first: Mutex<Option<Error>>,
    /// How many times fetching the first document has failed.
    failures: AtomicU64,
}

#[derive(Default)]
struct Cached {
    document: Option<Arc<Metadata>>,
    /// When the next refresh is due.
    due: Moment,
}

impl Issuer {
    /// Creates an issuer from its identifier: an `https` URL (or `http` to loopback) without query and
    /// fragment. The `build` of the builder that uses it checks it.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            name: issuer.into(),
            metadata_url: None,
            max_age: MAX_AGE,
            assertions_to_endpoint: false,
            cache: Arc::default(),
        }
    }

    /// Sets the full URL of the metadata. Use it for a server without metadata at the well-known URLs.
    /// The metadata must still name this issuer.
    ///
    /// With a metadata URL, the issuer may be a pattern, such as
    /// `https://login.example/{tenantid}/v2.0`, if the metadata contain that pattern. Then `iss` of
    /// authorization responses is not checked, and client assertions have the token endpoint as `aud`.
    pub fn metadata_url(mut self, url: impl Into<String>) -> Self {
        self.metadata_url = Some(url.into());
        self.cache = Arc::default();
        self
    }

    /// Sets the age at which the metadata are refreshed. Defaults to an hour.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self.cache = Arc::default();
        self
    }

    /// Sets `aud` of assertions to the endpoint that receives them, which some servers require.
    /// Defaults to the issuer (draft-ietf-oauth-rfc7523bis). It applies to client assertions and to
    /// [`JwtBearer`](crate::JwtBearer); a
    /// [configured](crate::ClientAuth::assertion_audience) audience takes precedence.
    #[cfg(feature = "jwt")]
    pub fn assertions_to_endpoint(mut self) -> Self {
        self.assertions_to_endpoint = true;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn check(self) -> Result<Discovery, ConfigError> {
        let error = |problem: &'static str| Err(ConfigError::new("issuer", problem));
        let url = secure_url::parse("issuer", &self.name)?;
        if url.query().is_some() {
            return error("an issuer must not have a query (RFC 8414 §2); remove it");
        }
        let urls = match &self.metadata_url {
            Some(url) => vec![secure_url::parse("metadata_url", url)?],
            None if exact(&self.name).is_none() => {
                return error("an issuer pattern requires `metadata_url`; set it");
            }
            None => well_known_urls(&url),
        };
        for url in &urls {
            secure_url::uri("metadata_url", url)?;
        }
        Ok(Discovery { issuer: self, urls })
    }
}

impl From<&str> for Issuer {
    fn from(issuer: &str) -> Self {
        Self::new(issuer)
    }
}

impl From<String> for Issuer {
    fn from(issuer: String) -> Self {
        Self::new(issuer)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not checked for credentials yet.
        f.debug_struct("Issuer").finish_non_exhaustive()
    }
}

/// Returns the issuer unless it is a pattern.
pub(crate) fn exact(issuer: &str) -> Option<&str> {
    (!issuer.contains('{')).then_some(issuer)
}

/// Returns the well-known URLs of an issuer's metadata, in the order of the requests.
fn well_known_urls(issuer: &Url) -> Vec<Url> {
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    const OPENID: &str = "/.well-known/openid-configuration";
    let own = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    let mut urls = vec![at(format!("{OAUTH}{own}")), at(format!("{OPENID}{own}"))];
    if !own.is_empty() {
        urls.push(at(format!("{own}{OPENID}")));
    }
    urls
}

/// A checked [`Issuer`].
pub(crate) struct Discovery {
    issuer: Issuer,
    urls: Vec<Url>,
}

impl Discovery {
    pub(crate) fn name(&self) -> &str {
        &self.issuer.name
    }

    #[cfg(feature = "redis")]
    pub(crate) fn metadata_url(&self) -> Option<&str> {
        self.issuer.metadata_url.as_deref()
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        exact(&self.issuer.name)
    }

    /// Returns `aud` of assertions; `None` for the endpoint that receives them.
    pub(crate) fn audience(&self) -> Option<&str> {
        self.issuer()
            .filter(|_| !self.issuer.assertions_to_endpoint)
    }

    /// Returns the cached document unless a refresh is due.
    pub(crate) fn cached(&self) -> Option<Arc<Metadata>> {
        let cached = self.issuer.cache.lock();
        let document = cached.document.as_ref();
        document
            .filter(|_| !now().reached(cached.due))
            .map(Arc::clone)
    }

    /// Returns the document, fetched if there is none or a refresh is due.
    pub(crate) async fn metadata(&self, http: &dyn DynHttpClient) -> Result<Arc<Metadata>, Error> {
        let old = {
            let mut cached = self.issuer.cache.lock();
            let Cached { document, due } = &mut *cached;
            if let Some(document) = document {
                if !now().reached(*due) {
                    return Ok(Arc::clone(document));
                }
                // Set before the request: one caller refreshes, and if it is cancelled, the next
                // refresh still waits for the delay.
                *due = now().after(RETRY_DELAY);
            }
            document.clone()
        };
        match old {
            Some(old) => {
                let refreshed = limited(REFRESH_TIMEOUT, self.fetch(http)).await;
                Ok(refreshed.map_or(old, |new| self.store(new)))
            }
            None => limited(MAX_WAIT, self.first(http)).await,
        }
    }

    async fn first(&self, http: &dyn DynHttpClient) -> Result<Arc<Metadata>, Error> {
        let cache = &self.issuer.cache;
        let failures = cache.failures.load(Ordering::Acquire);
        let mut failure = cache.first.lock().await;
        if let Some(document) = &cache.lock().document {
            return Ok(Arc::clone(document));
        }
        // A caller that waited for a failed request returns its error and sends no other.
        if cache.failures.load(Ordering::Acquire) != failures
            && let Some(failure) = &*failure
        {
            return Err(failure.clone());
        }
        match self.fetch(http).await {
            Ok(first) => Ok(self.store(first)),
            Err(error) => {
                cache.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure.insert(error).clone())
            }
        }
    }

    fn store(&self, document: Metadata) -> Arc<Metadata> {
        let document = Arc::new(document);
        *self.issuer.cache.lock() = Cached {
            document: Some(Arc::clone(&document)),
            due: now().after(self.issuer.max_age),
        };
        document
    }

    async fn fetch(&self, http: &dyn DynHttpClient) -> Result<Metadata, Error> {
        for url in &self.urls {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = secure_url::uri("metadata_url", url).map_err(|cause| {
                let message = "the server's metadata cannot be requested";
                error(Retry::Never, message).caused_by(cause).done()
            })?;
            let endpoint = format!("the metadata endpoint at {}", url.authority());
            let response = exchange(http, request, &endpoint).await?;
            if response.status() != StatusCode::NOT_FOUND {
                return Metadata::read(&response, &self.issuer.name);
            }
        }
        let message = "no metadata at the issuer's well-known URLs: set `metadata_url`";
        let error = error(Retry::Never, message);
        Err(error.status(StatusCode::NOT_FOUND).done())
    }
}

impl MetadataCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Moment {
    Clock::default().now()
}

fn error(retry: Retry, message: &'static str) -> crate::error::ErrorBuilder {
    Error::build(ErrorKind::Discovery, retry, message)
}
