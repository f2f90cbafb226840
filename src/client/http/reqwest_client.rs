//! The default [`HttpClient`]: reqwest with rustls.

use std::{fmt, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use reqwest::{Certificate, ClientBuilder, Identity, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use super::http_client::{HttpClient, HttpError, HttpFuture, read, refuse_plaintext};
use crate::{error::ConfigError, secure_url};

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
    /// PEM. Not reqwest's `Identity`, which is not wiped when it is dropped.
    identity: Option<SecretString>,
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

    /// Presents a certificate to a server that asks for one (mutual TLS, RFC 8705): for
    /// [`ClientAuth::tls`](crate::ClientAuth::tls), and for tokens that are bound to it.
    ///
    /// `pem` has the client's certificate, those between it and its root behind it, and the private
    /// key: `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1), not
    /// encrypted. Where they are in two files, give both in one text. The last call counts.
    ///
    /// The text is wiped with this client. What reqwest and rustls copy of the key while they read
    /// it, here and for the first connection, is not.
    ///
    /// # Errors
    ///
    /// There is no certificate or no private key in it, the key cannot be read, or it is not that
    /// of the first certificate. The error shows nothing of the text.
    pub fn identity_pem(mut self, pem: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let pem = pem.into();
        let identity = identity(&pem)
            .map_err(|_| ConfigError::new(IDENTITY, what_is_missing(pem.expose_secret())))?;
        // Key and certificate are compared when a client is built.
        builder()
            .tls_certs_only([])
            .identity(identity)
            .build()
            .map_err(|_| {
                let problem = "the private key is damaged, of a kind that TLS has no use for, or not \
                               that of the certificate; the client's own certificate comes first";
                ConfigError::new(IDENTITY, problem)
            })?;
        self.identity = Some(pem);
        Ok(self)
    }

    fn client(&self, request: &Request<Bytes>) -> Result<&reqwest::Client, HttpError> {
        refuse_plaintext(request)?;
        let host = request.uri().host().unwrap_or_default();
        let loopback = secure_url::is_loopback_host(host);
        let plain = request.uri().scheme_str() != Some("https");
        let slot = match (plain, loopback) {
            (true, _) => &self.plain,
            (false, true) => &self.local,
            (false, false) => &self.remote,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let failed = |error: reqwest::Error| HttpError::connect(error.without_url());
        let mut builder = builder();
        if loopback {
            builder = builder.no_proxy();
        }
        if plain {
            // No TLS, so no root certificates: a machine without any can do this.
            builder = builder.tls_certs_only([]);
        } else {
            builder = builder.tls_certs_merge(self.roots.iter().cloned());
            if let Some(pem) = &self.identity {
                builder = builder.identity(identity(pem).map_err(failed)?);
            }
        }
        let client = builder
            .redirect(redirect::Policy::none())
            .referer(false)
            // A connection kept for minutes is more often dead than useful.
            .pool_max_idle_per_host(0)
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .timeout(Self::TIMEOUT)
            .build()
            .map_err(failed)?;
        Ok(slot.get_or_init(|| client))
    }
}

impl HttpClient for ReqwestClient {
    fn presents_certificate(&self) -> bool {
        self.identity.is_some()
    }

    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_> {
        Box::pin(async move {
            if Handle::try_current().is_err() {
                return Err(HttpError::no_runtime());
            }
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
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Over rustls by name: in a program in which anybody switches reqwest's `native-tls` on, that would
/// be the default, and it cannot read our identity.
fn builder() -> ClientBuilder {
    reqwest::Client::builder().tls_backend_rustls()
}

fn identity(pem: &SecretString) -> Result<Identity, reqwest::Error> {
    Identity::from_pem(pem.expose_secret().as_bytes())
}

/// Why there is no identity in a text.
fn what_is_missing(pem: &str) -> &'static str {
    if pem.contains("ENCRYPTED") {
        "the private key is encrypted; decrypt it first, such as with `openssl pkcs8`"
    } else if !pem.contains("-----BEGIN ") {
        "not PEM, which begins with `-----BEGIN`; give the text itself, not the name of a file"
    } else if !pem.contains("-----BEGIN CERTIFICATE-----") {
        "no certificate in it; put it before the private key"
    } else if !pem.contains("PRIVATE KEY-----") {
        "no private key in it; put it behind the certificate"
    } else {
        "the PEM text is damaged, or has something else in it: are its line breaks and its END lines \
         there?"
    }
}

const IDENTITY: &str = "identity_pem";

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
