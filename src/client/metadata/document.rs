//! The members of an authorization server's metadata that the crate uses (RFC 8414 §2, OpenID Connect
//! Discovery §3). Others are ignored, as RFC 8414 §2.1 allows for `signed_metadata`.
//!
//! Invariants: a document of another issuer is an error (§3.3), and so is an endpoint that must not
//! receive secrets.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::{
    client::endpoint::response::{retry_after, retry_of_status},
    clock::Clock,
    error::{Error, ErrorKind, Retry},
    json::{self, Object},
    secure_url,
    work_counter::looked_at,
};

#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) token: Url,
    pub(crate) authorization: Option<Url>,
    pub(crate) revocation: Option<Url>,
    pub(crate) pushed_request: Option<Url>,
    /// The endpoints for clients that present a certificate.
    pub(crate) mtls: Aliases<Url>,
    pub(crate) requires_pushed_requests: bool,
    pub(crate) auth_methods: Option<Vec<String>>,
    pub(crate) issuer_is_sent: bool,
}

/// `mtls_endpoint_aliases` (RFC 8705 §5): each replaces the endpoint of the same name.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Aliases<U> {
    #[serde(rename = "token_endpoint")]
    pub(crate) token: Option<U>,
    #[serde(rename = "revocation_endpoint")]
    pub(crate) revocation: Option<U>,
    #[serde(rename = "pushed_authorization_request_endpoint")]
    pub(crate) pushed_request: Option<U>,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    pushed_authorization_request_endpoint: Option<String>,
    require_pushed_authorization_requests: Option<bool>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    authorization_response_iss_parameter_supported: Option<bool>,
    mtls_endpoint_aliases: Option<Object<Aliases<String>>>,
}

impl Metadata {
    /// Parses a response. The document must name `issuer` verbatim.
    pub(crate) fn read(response: &Response<Bytes>, issuer: &str) -> Result<Self, Error> {
        let status = response.status();
        if status != StatusCode::OK {
            let message = match status.is_redirection() {
                true => {
                    "the metadata request was redirected, and redirects are not followed: \
                         configure the issuer's final URL"
                }
                false => "the metadata request returned an unexpected status",
            };
            let now = Clock::default().now().system_time();
            let error = Error::build(ErrorKind::Discovery, retry_of_status(status), message);
            let wait = retry_after(response.headers(), now);
            return Err(error.status(status).server_wait(wait).done());
        }
        let document: Document = json::object(response.body())
            .map_err(|_| unusable(Retry::Later, "the server's metadata cannot be parsed"))?;
        if document.issuer != issuer {
            let message = "the metadata name another issuer (RFC 8414 §3.3): configure the issuer \
                           verbatim as the server writes it";
            return Err(unusable(Retry::Never, message));
        }
        let endpoint = |url: Option<String>| match url {
            Some(url) => endpoint(&url, issuer).map(Some),
            None => Ok(None),
        };
        let Some(token) = endpoint(document.token_endpoint)? else {
            let message = "the server's metadata name no token endpoint";
            return Err(unusable(Retry::Never, message));
        };
        let mtls = document.mtls_endpoint_aliases;
        let mtls = mtls.map_or_else(Aliases::default, |Object(aliases)| aliases);
        let methods = document.token_endpoint_auth_methods_supported;
        Ok(Self {
            token,
            mtls: Aliases {
                token: endpoint(mtls.token)?,
                revocation: endpoint(mtls.revocation)?,
                pushed_request: endpoint(mtls.pushed_request)?,
            },
            authorization: endpoint(document.authorization_endpoint)?,
            revocation: endpoint(document.revocation_endpoint)?,
            pushed_request: endpoint(document.pushed_authorization_request_endpoint)?,
            requires_pushed_requests: document
                .require_pushed_authorization_requests
                .unwrap_or(false),
            auth_methods: methods.filter(|methods| !methods.is_empty()),
            issuer_is_sent: document
                .authorization_response_iss_parameter_supported
                .unwrap_or(false),
        })
    }
}

/// Parses an endpoint: `https` (RFC 8414 §6.1), or loopback if the issuer is on loopback.
fn endpoint(url: &str, issuer: &str) -> Result<Url, Error> {
    looked_at(url.len());
    let url = secure_url::parse("endpoint", url).ok();
    let url = url.filter(|url| secure_url::uri("endpoint", url).is_ok());
    let secure = |url: &Url| url.scheme() == "https" || issuer.starts_with("http:");
    let message = "the server's metadata name an endpoint that is not an https URL";
    url.filter(secure)
        .ok_or_else(|| unusable(Retry::Never, message))
}

fn unusable(retry: Retry, message: &'static str) -> Error {
    Error::build(ErrorKind::Discovery, retry, message).done()
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
