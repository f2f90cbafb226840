//! The token endpoint (RFC 6749 §3.2): the one place that asks for tokens.
//!
//! Grants differ in their parameters only; what a request looks like, how the client proves itself
//! and how an answer is read is here, once. [`HttpClient`] is what sends: replace it to use an
//! HTTP stack of your own.

mod form;
mod http;
#[cfg(feature = "reqwest")]
mod reqwest_client;
mod response;

use std::{fmt, sync::Arc};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT},
};
use bytes::Bytes;
use secrecy::SecretString;
use url::Url;

use self::http::Failure;
pub use self::http::{HttpClient, HttpError, HttpFuture, MAX_BODY, TowerClient};
#[cfg(feature = "reqwest")]
pub use self::reqwest_client::ReqwestClient;
pub(crate) use self::{form::Form, response::Reading};
use crate::{
    ClientAuth, ConfigError, Error, ErrorKind, TokenResponse, address, clock::Clock, error::Retry,
};

/// A token endpoint, and one client's way to ask it.
pub(crate) struct TokenEndpoint {
    pub(crate) url: Url,
    /// Who the server is (RFC 8414 §2), if that is known.
    pub(crate) issuer: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) auth: ClientAuth,
    pub(crate) parameters: Parameters,
    pub(crate) headers: HeaderMap,
    pub(crate) http: Arc<dyn HttpClient>,
    pub(crate) reading: Reading,
}

/// Where the parameters of a request go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parameters {
    /// POST, as the standard has it.
    #[default]
    Body,
    /// POST with an empty body.
    Query,
    /// GET.
    Get,
}

impl TokenEndpoint {
    /// Asks for a token with the parameters of a grant, once.
    pub(crate) async fn ask(&self, form: Form) -> Result<TokenResponse, Error> {
        let response = self.send(form).await?;
        let now = Clock::default().now().system_time();
        self.reading.read(response, now)
    }

    /// Asks for something that is done (RFC 7009): the answer is its status.
    pub(crate) async fn tell(&self, form: Form) -> Result<(), Error> {
        let response = self.send(form).await?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        let now = Clock::default().now().system_time();
        self.reading.read(response, now).map(drop)
    }

    /// The same client at another endpoint of the server.
    pub(crate) fn at(&self, url: Url) -> Self {
        Self {
            url,
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            auth: self.auth.clone(),
            parameters: Parameters::Body,
            headers: HeaderMap::new(),
            http: Arc::clone(&self.http),
            issuer: self.issuer.clone(),
            reading: Reading::default(),
        }
    }

    async fn send(&self, form: Form) -> Result<Response<Bytes>, Error> {
        let request = self.request(form).map_err(|error| {
            Error::build(
                ErrorKind::Target,
                Retry::Never,
                "the token request cannot be built",
            )
            .caused_by(error)
            .done()
        })?;
        let unanswered = |error| {
            let host = self.url.authority();
            unanswered(error, &format!("the token endpoint at {host}"))
        };
        let response = self.http.send(request).await.map_err(unanswered)?;
        if response.body().len() > MAX_BODY {
            return Err(unanswered(HttpError::oversized()));
        }
        Ok(response)
    }

    fn request(&self, mut form: Form) -> Result<Request<Bytes>, ConfigError> {
        let mut headers = HeaderMap::new();
        self.auth.apply(
            &self.client_id,
            &self.client_secret,
            self.issuer.as_deref().unwrap_or(self.url.as_str()),
            &mut headers,
            &mut form,
        )?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        let encoded = form.encode();
        let (method, uri, body) = match self.parameters {
            Parameters::Body => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
                let body = zeroize::Zeroizing::new(encoded.as_bytes().to_vec());
                (Method::POST, self.uri()?, Bytes::from_owner(body))
            }
            Parameters::Query => {
                // RFC 9110 §8.6. HTTP clients leave it out, and some servers answer 411 to that.
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                (Method::POST, self.uri_with(&encoded)?, Bytes::new())
            }
            Parameters::Get => (Method::GET, self.uri_with(&encoded)?, Bytes::new()),
        };
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    pub(crate) fn uri(&self) -> Result<Uri, ConfigError> {
        address::uri("token_url", &self.url)
    }

    /// What the URL's query has already stays in front (RFC 6749 §3.2).
    fn uri_with(&self, parameters: &str) -> Result<Uri, ConfigError> {
        let mut url = self.url.clone();
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{parameters}"),
            _ => parameters.to_owned(),
        };
        url.set_query(Some(&query));
        address::uri("token_url", &url)
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        f.debug_struct("TokenEndpoint")
            .field("url", &url.as_str())
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

const OUR_NAME: &str = concat!("bearer-auth/", env!("CARGO_PKG_VERSION"));

/// The default client, if the crate has one.
pub(crate) fn default_client() -> Result<Arc<dyn HttpClient>, ConfigError> {
    #[cfg(feature = "reqwest")]
    return Ok(Arc::new(ReqwestClient::new()));
    #[cfg(not(feature = "reqwest"))]
    Err(ConfigError::new(
        "http_client",
        "none; give one, such as `endpoint::TowerClient`, or enable the feature `reqwest`",
    ))
}

/// For sources of one's own that ask over HTTP.
impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        unanswered(error, "the token endpoint")
    }
}

/// `endpoint` is what was asked, for a human.
fn unanswered(error: HttpError, endpoint: &str) -> Error {
    let (kind, retry, message) = match error.failure {
        Failure::Connect => (
            ErrorKind::Connect,
            Retry::Soon,
            format!("no connection to {endpoint}"),
        ),
        Failure::Timeout => (
            ErrorKind::Timeout,
            Retry::Later,
            format!("no answer in time from {endpoint}"),
        ),
        Failure::Oversized => (
            ErrorKind::InvalidResponse,
            Retry::Later,
            format!("an answer longer than 1 MiB from {endpoint}"),
        ),
        Failure::Other => (
            ErrorKind::Transport,
            Retry::Later,
            format!("the connection failed to {endpoint}"),
        ),
    };
    Error::build(kind, retry, message)
        .caused_by(error.cause)
        .done()
}
