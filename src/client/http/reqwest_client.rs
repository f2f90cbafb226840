//! The default [`HttpClient`]: reqwest with rustls.

use std::{fmt, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use reqwest::{Certificate, ClientBuilder, Identity, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use super::http_client::{HttpClient, HttpError, read, refuse_plaintext};
use crate::{error::ConfigError, secure_url};

/// An [`HttpClient`] with reqwest and rustls that trusts the system's root certificates.
///
/// The client follows no redirect, refuses plain `http` except to loopback, and uses the proxies of the
/// environment (`HTTPS_PROXY` …) except for loopback. The first request builds the reqwest client, so
/// creating this one does no I/O.
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
    /// PEM, which is wiped on drop. reqwest's `Identity` is not.
    identity: Option<SecretString>,
    /// One client for each kind of connection.
    plain: OnceLock<reqwest::Client>,
    local: OnceLock<reqwest::Client>,
    remote: OnceLock<reqwest::Client>,
}

impl ReqwestClient {
    /// The time limit for connecting, including TLS.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// The time limit for a token request.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Creates a client with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the root certificates of a PEM text. Use it for an authorization server with a certificate
    /// of a private CA.
    ///
    /// # Errors
    ///
    /// The text contains no certificate, or one that cannot be parsed.
    pub fn root_certificate_pem(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        const FIELD: &str = "root_certificate_pem";
        let roots = Certificate::from_pem_bundle(pem)
            .map_err(|_| ConfigError::new(FIELD, "not PEM text with certificates"))?;
        if roots.is_empty() {
            let problem =
                "contains no certificate, which begins with `-----BEGIN CERTIFICATE-----`";
            return Err(ConfigError::new(FIELD, problem));
        }
        // Only building a client parses the certificates. Without other roots, it reads no files.
        builder()
            .tls_certs_only(roots.iter().cloned())
            .build()
            .map_err(|_| ConfigError::new(FIELD, "contains a certificate that cannot be parsed"))?;
        self.roots.extend(roots);
        Ok(self)
    }

    /// Sets the client certificate for mutual TLS (RFC 8705). Use it for
    /// [`ClientAuth::tls`](crate::ClientAuth::tls), and for certificate-bound tokens.
    ///
    /// `pem` contains the client's certificate, then its intermediate certificates, and the private
    /// key: `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1), unencrypted.
    /// Concatenate two files into one text. A second call replaces the first.
    ///
    /// Dropping this client wipes the text. Copies that reqwest and rustls make while they parse the
    /// key, here and for the first connection, are not wiped.
    ///
    /// # Errors
    ///
    /// The text contains no certificate or no private key, the key cannot be parsed, or it does not
    /// match the first certificate. The error shows nothing of the text.
    pub fn identity_pem(mut self, pem: impl Into<SecretString>) -> Result<Self, ConfigError> {
        let pem = pem.into();
        let identity = identity(&pem)
            .map_err(|_| ConfigError::new(IDENTITY, identity_problem(pem.expose_secret())))?;
        // Only building a client compares the key with the certificate.
        builder()
            .tls_certs_only([])
            .identity(identity)
            .build()
            .map_err(|_| {
                let problem = "the private key is damaged, not usable for TLS, or not that of the \
                               certificate; the client's own certificate comes first";
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
            // Without TLS: works on a machine without root certificates.
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
            // Token requests are minutes apart: an idle connection would often be closed by then.
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

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
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

/// Selects rustls explicitly. If another crate enables reqwest's `native-tls`, that would be the
/// default, and it cannot parse our identity.
fn builder() -> ClientBuilder {
    reqwest::Client::builder().tls_backend_rustls()
}

fn identity(pem: &SecretString) -> Result<Identity, reqwest::Error> {
    Identity::from_pem(pem.expose_secret().as_bytes())
}

/// Returns why a text contains no identity.
fn identity_problem(pem: &str) -> &'static str {
    if pem.contains("ENCRYPTED") {
        "the private key is encrypted; decrypt it first, for example with `openssl pkcs8`"
    } else if !pem.contains("-----BEGIN ") {
        "not PEM, which begins with `-----BEGIN`; pass the text, not the name of a file"
    } else if !pem.contains("-----BEGIN CERTIFICATE-----") {
        "contains no certificate; put it before the private key"
    } else if !pem.contains("PRIVATE KEY-----") {
        "contains no private key; put it after the certificate"
    } else {
        "the PEM text is damaged; check its line breaks and its END lines"
    }
}

const IDENTITY: &str = "identity_pem";

/// Removes the URL from the error, as its query may contain secrets.
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
