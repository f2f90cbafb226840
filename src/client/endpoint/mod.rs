//! The token endpoint (RFC 6749 §3.2): the one place that asks for tokens.
//!
//! Grants differ in their parameters only; what a request looks like, how the client proves itself
//! and how an answer is read is here, once. [`HttpClient`] is what sends: replace it to use an
//! HTTP stack of your own.

mod answer;
pub(crate) mod response;

use std::{fmt, sync::Arc};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use secrecy::SecretString;
use url::Url;

use self::response::{Asked, Leniency};
use super::{
    auth::ClientAuth,
    form::Form,
    http::{HttpClient, MAX_WAIT, exchange, limited},
    params::Placement,
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
    pub(crate) auth_is_configured: bool,
    pub(crate) placement: Placement,
    pub(crate) headers: HeaderMap,
    pub(crate) http: Arc<dyn HttpClient>,
    pub(crate) leniency: Leniency,
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

impl TokenEndpoint {
    /// Asks for a token with the parameters of a grant, once.
    pub(crate) async fn ask(&self, form: Form) -> Result<TokenResponse, Error> {
        let asked = self.asked(&form);
        let response = self.send(form).await?;
        let now = Clock::default().now().system_time();
        self.client.leniency.read(response, now, asked)
    }

    /// As [`ask`](Self::ask), where no cache sets a limit.
    pub(crate) async fn ask_briefly(&self, form: Form) -> Result<TokenResponse, Error> {
        limited(MAX_WAIT, self.ask(form)).await
    }

    /// Asks for something that is done: the answer of a success is the caller's to read.
    pub(crate) async fn tell(&self, form: Form) -> Result<Bytes, Error> {
        let asked = self.asked(&form);
        let response = limited(MAX_WAIT, self.send(form)).await?;
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
        let endpoint = format!("{} at {}", self.kind.name(), self.url.authority());
        exchange(&*self.client.http, request, &endpoint).await
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
        let encoded = form.encode();
        // The others take a form, and nothing that the token endpoint wants in particular.
        let placement = match self.kind {
            Kind::Token => self.client.placement,
            _ => Placement::Body,
        };
        let (method, uri, body) = match placement {
            Placement::Body => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
                let body = zeroize::Zeroizing::new(encoded.as_bytes().to_vec());
                (Method::POST, self.uri()?, Bytes::from_owner(body))
            }
            Placement::Query => {
                // RFC 9110 §8.6. HTTP clients leave it out, and some servers answer 411 to that.
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                (Method::POST, self.uri_with(&encoded)?, Bytes::new())
            }
            Placement::Get => (Method::GET, self.uri_with(&encoded)?, Bytes::new()),
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
