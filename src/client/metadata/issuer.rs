//! [`Issuer`]: a server by its name, whose metadata say the rest.
//!
//! Invariants: at most one request for the metadata is under way, and whoever waits for it shares
//! how it ends; a document is used until its time is over *and* there is a newer one, so that a
//! failure to renew it is nobody's concern: one caller waits for it, briefly, and all others go on
//! with the old one. No wait is without an end, whatever the HTTP client does.

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
    client::http::{HttpClient, MAX_WAIT, exchange, limited},
    clock::{Clock, Moment},
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
};

/// For how long a document is used.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// Between two attempts to renew it.
const PAUSE: Duration = Duration::from_secs(60);
/// How long renewing it may keep the one waiting who could do with the old one.
const PATIENCE: Duration = Duration::from_secs(5);

/// An authorization server, by its issuer identifier (RFC 8414 §2): its metadata say where its
/// endpoints are, and how clients prove themselves there.
///
/// A text is an issuer, too: `ClientCredentials::discover("https://idp.example", …)`. It is compared
/// with what the server says of itself to the letter, a `/` at its end included (§3.3).
///
/// The document is asked for when it is first needed, once for all who wait, at
/// `/.well-known/oauth-authorization-server` *before* the issuer's path (§3.1), then at
/// `/.well-known/openid-configuration` before it and behind it (OpenID Connect Discovery §4): a 404
/// leads on to the next, and nothing else does. It is used for [an hour](Self::max_age); if it
/// cannot be had again then, the old one is used on. Clones share it.
///
/// Some servers are not found where their issuer says, by design:
///
/// ```
/// use bearer_auth::Issuer;
///
/// // Entra ID for people of any tenant: its metadata have a pattern for an issuer.
/// let entra = Issuer::new("https://login.microsoftonline.com/{tenantid}/v2.0")
///     .metadata_url("https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration");
/// // Azure AD B2C: the metadata are a policy's, the issuer is the tenant's.
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
    known: Arc<Known>,
}

#[derive(Default)]
struct Known {
    last: std::sync::Mutex<Last>,
    /// Held by whoever asks for the first document; and how that has failed last.
    first: Mutex<Option<Error>>,
    /// How many times it has failed.
    failures: AtomicU64,
}

#[derive(Default)]
struct Last {
    document: Option<Arc<Metadata>>,
    /// From when on it is asked for again.
    due: Moment,
}

impl Issuer {
    /// By its identifier: `https`, or `http` to loopback, without a query and a fragment. Checked
    /// by `build` of what it is given to.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            name: issuer.into(),
            metadata_url: None,
            max_age: MAX_AGE,
            assertions_to_endpoint: false,
            known: Arc::default(),
        }
    }

    /// Where its metadata are, in full, if that is not one of the well-known places. They have to
    /// name this issuer all the same.
    ///
    /// With it, the issuer may be a pattern, such as `https://login.example/{tenantid}/v2.0`, if
    /// that is what the document has. Answers to logins are not compared with a pattern, and
    /// assertions of clients are addressed to the token endpoint.
    pub fn metadata_url(mut self, url: impl Into<String>) -> Self {
        self.metadata_url = Some(url.into());
        self.known = Arc::default();
        self
    }

    /// How long its metadata are used before they are asked for again. Default: an hour.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self.known = Arc::default();
        self
    }

    /// Assertions are addressed (`aud`) to the endpoint that they are sent to, as some servers want
    /// it, instead of to the issuer (draft-ietf-oauth-rfc7523bis): those with which clients prove
    /// themselves, and those of [`JwtBearer`](crate::JwtBearer). An audience that is
    /// [given](crate::ClientAuth::assertion_audience) counts in any case.
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
            return error("an issuer has no query (RFC 8414 §2)");
        }
        let places = match &self.metadata_url {
            Some(url) => vec![secure_url::parse("metadata_url", url)?],
            None if exact(&self.name).is_none() => {
                return error("a pattern is no place: give its `metadata_url`");
            }
            None => places(&url),
        };
        for place in &places {
            secure_url::uri("metadata_url", place)?;
        }
        Ok(Discovery {
            issuer: self,
            places,
        })
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

/// An issuer that is no pattern.
pub(crate) fn exact(issuer: &str) -> Option<&str> {
    (!issuer.contains('{')).then_some(issuer)
}

/// The well-known places of an issuer's metadata, in the order in which they are asked.
fn places(issuer: &Url) -> Vec<Url> {
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    const OPENID: &str = "/.well-known/openid-configuration";
    let own = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    let mut places = vec![at(format!("{OAUTH}{own}")), at(format!("{OPENID}{own}"))];
    if !own.is_empty() {
        places.push(at(format!("{own}{OPENID}")));
    }
    places
}

/// An issuer that has been checked.
pub(crate) struct Discovery {
    issuer: Issuer,
    places: Vec<Url>,
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

    /// To whom clients' assertions are addressed, if not to the endpoint that they are sent to.
    pub(crate) fn audience(&self) -> Option<&str> {
        self.issuer()
            .filter(|_| !self.issuer.assertions_to_endpoint)
    }

    /// The document that is there, if there is nothing to ask for.
    pub(crate) fn at_hand(&self) -> Option<Arc<Metadata>> {
        let last = self.issuer.known.last();
        let document = last.document.as_ref();
        document
            .filter(|_| !now().reached(last.due))
            .map(Arc::clone)
    }

    /// The document, asked for if there is none, or if its time is over.
    pub(crate) async fn metadata(&self, http: &dyn HttpClient) -> Result<Arc<Metadata>, Error> {
        let old = {
            let mut last = self.issuer.known.last();
            let Last { document, due } = &mut *last;
            if let Some(document) = document {
                if !now().reached(*due) {
                    return Ok(Arc::clone(document));
                }
                // Beforehand: this is for one to do, and who gives it up leaves the pause behind.
                *due = now().after(PAUSE);
            }
            document.clone()
        };
        match old {
            Some(old) => {
                let renewed = limited(PATIENCE, self.ask(http)).await;
                Ok(renewed.map_or(old, |new| self.keep(new)))
            }
            None => limited(MAX_WAIT, self.first(http)).await,
        }
    }

    async fn first(&self, http: &dyn HttpClient) -> Result<Arc<Metadata>, Error> {
        let known = &self.issuer.known;
        let failures = known.failures.load(Ordering::Acquire);
        let mut failure = known.first.lock().await;
        if let Some(document) = &known.last().document {
            return Ok(Arc::clone(document));
        }
        // Who waited for an attempt that has failed does not make another.
        if known.failures.load(Ordering::Acquire) != failures
            && let Some(failure) = &*failure
        {
            return Err(failure.clone());
        }
        match self.ask(http).await {
            Ok(first) => Ok(self.keep(first)),
            Err(error) => {
                known.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure.insert(error).clone())
            }
        }
    }

    fn keep(&self, document: Metadata) -> Arc<Metadata> {
        let document = Arc::new(document);
        *self.issuer.known.last() = Last {
            document: Some(Arc::clone(&document)),
            due: now().after(self.issuer.max_age),
        };
        document
    }

    async fn ask(&self, http: &dyn HttpClient) -> Result<Metadata, Error> {
        for place in &self.places {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = secure_url::uri("metadata_url", place).map_err(|cause| {
                let message = "the server's metadata cannot be requested";
                error(Retry::Never, message).caused_by(cause).done()
            })?;
            let what = format!("the metadata of the server at {}", place.authority());
            let response = exchange(http, request, &what).await?;
            if response.status() != StatusCode::NOT_FOUND {
                return Metadata::read(&response, &self.issuer.name);
            }
        }
        let message = "the server has no metadata where its issuer says: give their `metadata_url`";
        let error = error(Retry::Never, message);
        Err(error.status(StatusCode::NOT_FOUND).done())
    }
}

impl Known {
    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Moment {
    Clock::default().now()
}

fn error(retry: Retry, message: &'static str) -> crate::error::ErrorBuilder {
    Error::build(ErrorKind::Discovery, retry, message)
}
