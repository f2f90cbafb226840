//! The default [`HttpClient`]: reqwest with rustls.

use std::{fmt, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use reqwest::{Certificate, ClientBuilder, redirect};

use super::http::{HttpClient, HttpError, HttpFuture, read, refuse_plaintext};
use crate::{ConfigError, address};

/// Sends token requests with reqwest over rustls, trusting the system's root certificates.
///
/// Follows no redirect, refuses plain `http` except to loopback, uses the proxies of the environment
/// (`HTTPS_PROXY` …) except for loopback. Built on first use: making one does no I/O.
///
/// ```no_run
/// use bearer_auth::{ClientCredentials, endpoint::ReqwestClient};
///
/// let pem = std::fs::read("our-own-ca.pem")?;
/// let http = ReqwestClient::new().root_certificate_pem(&pem)?;
/// let source = ClientCredentials::builder("https://idp.corp.example/token", "id", "secret")
///     .http_client(http)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct ReqwestClient {
    roots: Vec<Certificate>,
    /// One client for each way to connect.
    plain: OnceLock<reqwest::Client>,
    local: OnceLock<reqwest::Client>,
    remote: OnceLock<reqwest::Client>,
}

impl ReqwestClient {
    /// How long connecting may take, TLS included.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long a token request may take.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// A client with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the root certificates of a PEM file too: for an identity provider with a certificate
    /// of its own making.
    ///
    /// # Errors
    ///
    /// The text has no certificate, or one that cannot be read.
    pub fn root_certificate_pem(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        const FIELD: &str = "root_certificate_pem";
        let roots = Certificate::from_pem_bundle(pem)
            .map_err(|_| ConfigError::new(FIELD, "not a PEM file with certificates"))?;
        if roots.is_empty() {
            let problem = "no certificate in it; it begins with `-----BEGIN CERTIFICATE-----`";
            return Err(ConfigError::new(FIELD, problem));
        }
        // What is between the PEM lines is looked at when a client is built. This one needs no
        // other roots, so that nothing is read from disk for it.
        builder()
            .tls_certs_only(roots.iter().cloned())
            .build()
            .map_err(|_| ConfigError::new(FIELD, "a certificate in it cannot be read"))?;
        self.roots.extend(roots);
        Ok(self)
    }

    fn client(&self, request: &Request<Bytes>) -> Result<&reqwest::Client, HttpError> {
        refuse_plaintext(request)?;
        let host = request.uri().host().unwrap_or_default();
        let loopback = address::is_loopback_host(host);
        let plain = request.uri().scheme_str() != Some("https");
        let (slot, client) = if plain {
            // No TLS, so no root certificates: a machine without any can do this.
            (&self.plain, builder().no_proxy().tls_certs_only([]))
        } else {
            let client = builder().tls_certs_merge(self.roots.iter().cloned());
            if loopback {
                (&self.local, client.no_proxy())
            } else {
                (&self.remote, client)
            }
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = client
            .redirect(redirect::Policy::none())
            .referer(false)
            // A connection kept for minutes is more often dead than useful.
            .pool_max_idle_per_host(0)
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .timeout(Self::TIMEOUT)
            .build()
            .map_err(|error| HttpError::connect(error.without_url()))?;
        Ok(slot.get_or_init(|| client))
    }
}

impl HttpClient for ReqwestClient {
    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_> {
        Box::pin(async move {
            let client = self.client(&request)?;
            let request = reqwest::Request::try_from(request)
                .map_err(|error| HttpError::other(error.without_url()))?;
            let response = client.execute(request).await.map_err(http_error)?;
            let response = Response::<reqwest::Body>::from(response);
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, read(body).await?))
        })
    }
}

impl fmt::Debug for ReqwestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestClient")
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// Over rustls by name: in a program in which anybody switches reqwest's `native-tls` on, that would
/// be the default.
fn builder() -> ClientBuilder {
    reqwest::Client::builder().tls_backend_rustls()
}

/// A URL may have a query with secrets in it: it does not go into errors.
fn http_error(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    if error.is_connect() {
        HttpError::connect(error)
    } else if error.is_timeout() {
        HttpError::timeout(error)
    } else {
        HttpError::other(error)
    }
}
