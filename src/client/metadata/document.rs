//! An authorization server's metadata (RFC 8414 §2, OpenID Connect Discovery §3), as far as they
//! matter here.
//!
//! Members that mean nothing here are passed over, `signed_metadata` among them (RFC 8414 §2.1
//! leaves that open). Invariants: a document of another issuer is not read any further (§3.3); an
//! endpoint that secrets could not go to is an error, not left out.

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
    /// For clients that present a certificate, where there are any.
    pub(crate) mtls: Aliases<Url>,
    pub(crate) demands_pushed_requests: bool,
    pub(crate) auth_methods: Option<Vec<String>>,
    pub(crate) issuer_is_sent: bool,
}

/// RFC 8705 §5: each stands for the endpoint of its name.
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
    /// `issuer`: whose it has to be, to the letter.
    pub(crate) fn read(response: &Response<Bytes>, issuer: &str) -> Result<Self, Error> {
        let status = response.status();
        if status != StatusCode::OK {
            let message = match status.is_redirection() {
                true => {
                    "the server's metadata are elsewhere, and redirects are not followed: \
                         give the issuer's final URL"
                }
                false => "the server's metadata were answered with an unexpected status",
            };
            let now = Clock::default().now().system_time();
            let error = Error::build(ErrorKind::Discovery, retry_of_status(status), message);
            let wait = retry_after(response.headers(), now);
            return Err(error.status(status).server_wait(wait).done());
        }
        let document: Document = json::object(response.body())
            .map_err(|_| unusable(Retry::Later, "the server's metadata cannot be read"))?;
        if document.issuer != issuer {
            let message = "the metadata are another issuer's (RFC 8414 §3.3): give the issuer as \
                           the server writes it, to the letter";
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
            demands_pushed_requests: document
                .require_pushed_authorization_requests
                .unwrap_or(false),
            auth_methods: methods.filter(|methods| !methods.is_empty()),
            issuer_is_sent: document
                .authorization_response_iss_parameter_supported
                .unwrap_or(false),
        })
    }
}

/// RFC 8414 §6.1: over TLS, as the metadata were; what came over loopback may stay there.
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
