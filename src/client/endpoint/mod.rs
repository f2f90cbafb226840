//! [`TokenEndpoint`]: requests to the token endpoint (RFC 6749 §3.2) and the server's other endpoints.
//!
//! Grants differ in their parameters only. Requests, client authentication and responses are the same
//! for all of them, and an [`HttpClient`](crate::endpoint::HttpClient) sends the requests.

mod body;
pub(crate) mod response;

use std::{fmt, sync::Arc};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use secrecy::SecretString;
use url::Url;

use self::response::{Leniency, RequestInfo};
use super::{
    auth::ClientAuth,
    form::Form,
    http::{DynHttpClient, MAX_WAIT, exchange, limited},
    params::Placement,
};
use crate::{
    clock::Clock,
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
    token::TokenResponse,
};

/// The client: its credentials, and the settings of its token requests.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    pub(crate) auth: ClientAuth,
    /// Whether the caller configured `auth`, which then takes precedence over the metadata.
    pub(crate) auth_is_configured: bool,
    pub(crate) placement: Placement,
    pub(crate) headers: HeaderMap,
    pub(crate) http: Arc<dyn DynHttpClient>,
    pub(crate) leniency: Leniency,
}

/// An endpoint of the server, for one client.
pub(crate) struct TokenEndpoint {
    pub(crate) url: Url,
    /// The server's issuer (RFC 8414 §2), if it is known: the default `aud` of assertions.
    pub(crate) issuer: Option<String>,
    pub(crate) auth: ClientAuth,
    pub(crate) client: Arc<Client>,
    pub(crate) kind: EndpointKind,
}

/// The kind of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    Token,
    /// RFC 7009.
    Revocation,
    /// RFC 9126.
    PushedRequest,
}

impl EndpointKind {
    /// Returns the name in error texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "the token endpoint",
            Self::Revocation => "the revocation endpoint",
            Self::PushedRequest => "the pushed authorization request endpoint",
        }
    }
}

impl TokenEndpoint {
    /// Sends one token request with the parameters of a grant.
    pub(crate) async fn request_token(&self, form: Form) -> Result<TokenResponse, Error> {
        let info = self.request_info(&form);
        let response = self.send(form).await?;
        let now = Clock::default().now().system_time();
        self.client.leniency.read(response, now, info)
    }

    /// As [`request_token`](Self::request_token), with a time limit, for callers outside a cache.
    pub(crate) async fn request_token_limited(&self, form: Form) -> Result<TokenResponse, Error> {
        limited(MAX_WAIT, self.request_token(form)).await
    }

    /// Sends a form to an endpoint that issues no token. Returns the body of a successful response.
    pub(crate) async fn post(&self, form: Form) -> Result<Bytes, Error> {
        let info = self.request_info(&form);
        let response = limited(MAX_WAIT, self.send(form)).await?;
        if self.kind == EndpointKind::Revocation && response.status() == StatusCode::OK {
            // The rest of the response is ignored (RFC 7009 §2.2).
            return Ok(Bytes::new());
        }
        let now = Clock::default().now().system_time();
        response::accepted(response, now, info)
    }

    /// Returns the default `aud` of assertions.
    pub(crate) fn audience(&self) -> &str {
        self.issuer.as_deref().unwrap_or(self.url.as_str())
    }

    fn request_info(&self, form: &Form) -> RequestInfo {
        RequestInfo {
            endpoint: self.kind.name(),
            grant_is_assertion: form.has("assertion"),
            auth_is_assertion: self.auth.is_assertion(),
        }
    }

    /// Returns another endpoint of the server, for the same client.
    pub(crate) fn other(&self, url: Url, kind: EndpointKind) -> Self {
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
        // The placement and the headers are configured for the token endpoint only.
        let placement = match self.kind {
            EndpointKind::Token => self.client.placement,
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
                // RFC 9110 §8.6. HTTP clients leave it out, and some servers then return 411.
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                (Method::POST, self.uri_with(&encoded)?, Bytes::new())
            }
            Placement::Get => (Method::GET, self.uri_with(&encoded)?, Bytes::new()),
        };
        if self.kind == EndpointKind::Token {
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

/// The error of a token request that cannot be built.
pub(crate) fn unbuildable(error: ConfigError) -> Error {
    let message = "the token request cannot be built";
    Error::build(ErrorKind::Target, Retry::Never, message)
        .caused_by(error)
        .done()
}
