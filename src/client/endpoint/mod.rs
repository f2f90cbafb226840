//! The token endpoint (RFC 6749 §3.2): the one place that asks for tokens.
//!
//! Grants differ in their parameters only; what a request looks like, how the client proves itself
//! and how an answer is read is here, once. [`HttpClient`] is what sends: replace it to use an
//! HTTP stack of your own.

mod answer;
pub(crate) mod response;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT},
};
use bytes::Bytes;
use secrecy::SecretString;
use tokio::runtime::Handle;
use url::Url;

use self::response::{Asked, Reading};
#[cfg(feature = "reqwest")]
use super::http::ReqwestClient;
use super::{
    auth::ClientAuth,
    form::Form,
    http::{Failure, HttpClient, HttpError, MAX_BODY},
};
use crate::{
    clock::Clock,
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
    token::TokenResponse,
};

/// A client, and how it asks for tokens, whatever the server.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    pub(crate) auth: ClientAuth,
    /// By the caller: whatever the server says that it takes.
    pub(crate) auth_is_told: bool,
    pub(crate) parameters: Parameters,
    pub(crate) headers: HeaderMap,
    pub(crate) http: Arc<dyn HttpClient>,
    pub(crate) reading: Reading,
}

/// A token endpoint, or one beside it, and a client's way to ask it.
pub(crate) struct TokenEndpoint {
    pub(crate) url: Url,
    /// Who the server is (RFC 8414 §2), if that is known, and what assertions are addressed to.
    pub(crate) issuer: Option<String>,
    pub(crate) auth: ClientAuth,
    pub(crate) client: Arc<Client>,
    pub(crate) kind: Kind,
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Token,
    /// RFC 7009.
    Revocation,
    /// RFC 9126.
    PushedRequest,
}

impl Kind {
    /// For a human.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "the token endpoint",
            Self::Revocation => "the revocation endpoint",
            Self::PushedRequest => "the pushed authorization request endpoint",
        }
    }
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
        let asked = self.asked(&form);
        let response = self.send(form).await?;
        let now = Clock::default().now().system_time();
        self.client.reading.read(response, now, asked)
    }

    /// As [`ask`](Self::ask), where no cache sets a limit.
    pub(crate) async fn ask_briefly(&self, form: Form) -> Result<TokenResponse, Error> {
        limited(LONGEST, self.ask(form)).await
    }

    /// Asks for something that is done: the answer of a success is the caller's to read.
    pub(crate) async fn tell(&self, form: Form) -> Result<Bytes, Error> {
        let asked = self.asked(&form);
        let response = limited(LONGEST, self.send(form)).await?;
        if self.kind == Kind::Revocation && response.status() == StatusCode::OK {
            // Whatever else it says (RFC 7009 §2.2).
            return Ok(Bytes::new());
        }
        let now = Clock::default().now().system_time();
        response::accepted(response, now, asked)
    }

    /// To whom assertions are addressed, if nobody says.
    pub(crate) fn audience(&self) -> &str {
        self.issuer.as_deref().unwrap_or(self.url.as_str())
    }

    fn asked(&self, form: &Form) -> Asked {
        Asked {
            endpoint: self.kind.name(),
            grant_is_assertion: form.has("assertion"),
            proof_is_assertion: self.auth.is_assertion(),
        }
    }

    /// The same client at another endpoint of the server.
    pub(crate) fn beside(&self, url: Url, kind: Kind) -> Self {
        Self {
            url,
            issuer: self.issuer.clone(),
            auth: self.auth.clone(),
            client: Arc::clone(&self.client),
            kind,
        }
    }

    async fn send(&self, form: Form) -> Result<Response<Bytes>, Error> {
        let request = self.request(form).map_err(unbuildable)?;
        let unanswered = |error| {
            let host = self.url.authority();
            unanswered(error, &format!("{} at {host}", self.kind.name()))
        };
        let response = self.client.http.send(request).await.map_err(unanswered)?;
        if response.body().len() > MAX_BODY {
            return Err(unanswered(HttpError::oversized()));
        }
        Ok(response)
    }

    fn request(&self, mut form: Form) -> Result<Request<Bytes>, ConfigError> {
        let mut headers = HeaderMap::new();
        self.auth.apply(
            &self.client.id,
            &self.client.secret,
            self.audience(),
            &mut headers,
            &mut form,
        )?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        let encoded = form.encode();
        // The others take a form, and nothing that the token endpoint wants in particular.
        let parameters = match self.kind {
            Kind::Token => self.client.parameters,
            _ => Parameters::Body,
        };
        let (method, uri, body) = match parameters {
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
        if self.kind == Kind::Token {
            for (name, value) in &self.client.headers {
                headers.insert(name, value.clone());
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    pub(crate) fn uri(&self) -> Result<Uri, ConfigError> {
        secure_url::uri("token_url", &self.url)
    }

    fn uri_with(&self, parameters: &str) -> Result<Uri, ConfigError> {
        secure_url::uri("token_url", &secure_url::with_query(&self.url, parameters))
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        f.debug_struct("TokenEndpoint")
            .field("url", &url.as_str())
            .field("client_id", &self.client.id)
            .field("client_secret", &self.client.secret)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// What is said of a token request that cannot be sent.
pub(crate) fn unbuildable(error: ConfigError) -> Error {
    let message = "the token request cannot be built";
    let unbuildable = Error::build(ErrorKind::Target, Retry::Never, message);
    unbuildable.caused_by(error).done()
}

pub(crate) const OUR_NAME: &str = concat!("bearer-auth/", env!("CARGO_PKG_VERSION"));

/// How long somebody waits for a server where no cache sets a limit, if the HTTP client sets none
/// of its own: longer than the limits that clients set.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// Without a runtime, which has the timers, the limit is the HTTP client's.
pub(crate) async fn limited<T>(
    longest: Duration,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return asked.await;
    };
    let limited = Clock::default().timeout(longest, &runtime, asked).await;
    limited.unwrap_or_else(|| {
        let message = "no answer in time from the authorization server";
        Err(Error::build(ErrorKind::Timeout, Retry::Later, message).done())
    })
}

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
pub(crate) fn unanswered(error: HttpError, endpoint: &str) -> Error {
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
