//! The settings of every client, independent of its grant: identity, authentication, and how token
//! requests are sent and responses are parsed. [`client_setters`] adds their setters to each builder.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    auth::ClientAuth,
    endpoint::{Client, response::Leniency},
    http::{DynHttpClient, default_client},
    params::Placement,
    server::{Place, Server, ServerSettings},
};
use crate::error::ConfigError;

/// The settings of a client, not checked yet.
pub(crate) struct ClientSettings {
    pub(crate) server: ServerSettings,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) auth: Vec<ClientAuth>,
    pub(crate) placement: Placement,
    pub(crate) headers: Vec<(String, SecretString)>,
    pub(crate) http: Option<Arc<dyn DynHttpClient>>,
    pub(crate) leniency: Leniency,
    /// Whether requests have no `client_id`, which some grants allow.
    pub(crate) anonymous: bool,
}

impl ClientSettings {
    pub(crate) fn new(place: Place, client_id: String, client_secret: SecretString) -> Self {
        Self {
            server: ServerSettings::new(place),
            client_id,
            client_secret,
            auth: Vec::new(),
            placement: Placement::default(),
            headers: Vec::new(),
            http: None,
            leniency: Leniency::default(),
            anonymous: false,
        }
    }

    /// Checks the settings. `default` is the authentication method if none is configured.
    pub(crate) fn build(self, default: ClientAuth) -> Result<Server, ConfigError> {
        let auth_is_configured = !self.auth.is_empty();
        let auth = one_auth(self.auth, default)?;
        if !self.anonymous {
            auth.check(&self.client_id, &self.client_secret)?;
        }
        if self.placement != Placement::Body && auth.is_in_body() {
            return Err(ConfigError::new(
                "client_auth",
                "this method would put the secret or the assertion into the URL; \
                 with parameters in the query, use `basic` or `basic_raw`",
            ));
        }
        if auth.is_tls() && self.http.is_none() {
            return Err(ConfigError::new(
                "http_client",
                "missing; `ClientAuth::tls` requires one that presents the client's certificate, \
                 such as `ReqwestClient` with `identity_pem`",
            ));
        }
        if let Some(scheme) = &self.leniency.scheme
            && !is_token(scheme)
        {
            return Err(ConfigError::new(
                "scheme",
                "not a valid authentication scheme; use a name such as `Bearer`",
            ));
        }
        if self
            .leniency
            .bearer_aliases
            .iter()
            .any(|alias| alias.trim().is_empty())
        {
            return Err(ConfigError::new(
                "bearer_alias",
                "empty; name a `token_type`",
            ));
        }
        let client = Client {
            headers: headers(self.headers, self.placement)?,
            id: self.client_id,
            secret: self.client_secret,
            auth,
            auth_is_configured,
            placement: self.placement,
            http: match self.http {
                Some(client) => client,
                None => default_client()?,
            },
            leniency: self.leniency,
        };
        self.server.build(Arc::new(client))
    }
}

fn one_auth(mut methods: Vec<ClientAuth>, default: ClientAuth) -> Result<ClientAuth, ConfigError> {
    let auth = methods.pop().unwrap_or(default);
    if methods.is_empty() {
        return Ok(auth);
    }
    Err(ConfigError::new(
        "client_auth",
        "set twice; a request uses exactly one method (RFC 6749 §2.3)",
    ))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn headers(
    configured: Vec<(String, SecretString)>,
    placement: Placement,
) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let error = |problem: String| Err(ConfigError::new("header", problem));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return error("not a valid header name".to_owned());
        };
        if name == http::header::AUTHORIZATION {
            return error("`client_auth` sets `Authorization`; remove this header".to_owned());
        }
        if [http::header::CONTENT_LENGTH, http::header::HOST].contains(&name)
            || name == http::header::TRANSFER_ENCODING
        {
            return error(format!("the HTTP client sets `{name}`; remove it"));
        }
        if name == http::header::CONTENT_TYPE && placement == Placement::Body {
            return error(format!(
                "`{name}` of a form body is fixed (RFC 6749 §4.4.2); remove it"
            ));
        }
        let bytes = Zeroizing::new(value.expose_secret().as_bytes().to_vec());
        let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)) else {
            return error(format!(
                "the value of `{name}` contains a character that is not allowed in headers, \
                 such as a line break"
            ));
        };
        value.set_sensitive(true);
        if headers.contains_key(&name) {
            return error(format!("`{name}` is given twice; give it once"));
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Adds the setters of [`ClientSettings`] to a builder that has a field `client: ClientSettings`.
macro_rules! client_setters {
    ($builder:ty) => {
        /// Settings of every client.
        impl $builder {
            /// Sets how the client authenticates. Defaults to
            /// [`ClientAuth::basic`](crate::ClientAuth::basic), or to
            /// [`ClientAuth::none`](crate::ClientAuth::none) for a client without a secret, if the
            /// grant allows it. Two methods are an error of [`build`](Self::build) (RFC 6749 §2.3).
            pub fn client_auth(mut self, auth: crate::client::ClientAuth) -> Self {
                self.client.auth.push(auth);
                self
            }

            /// Sets the HTTP client for token requests. Defaults to
            /// [`ReqwestClient`](crate::endpoint::ReqwestClient) with the feature `reqwest`, and is
            /// required without it.
            pub fn http_client(mut self, client: impl crate::client::HttpClient) -> Self {
                self.client.http = Some(std::sync::Arc::new(client));
                self
            }

            /// Adds a header to the token requests. A second one of the same name is an error. So is
            /// `Authorization`, as [`client_auth`](Self::client_auth) sets it, and the `Content-Type` of a
            /// form body.
            pub fn header(
                mut self,
                name: impl Into<String>,
                value: impl Into<secrecy::SecretString>,
            ) -> Self {
                self.client.headers.push((name.into(), value.into()));
                self
            }

            /// Makes a response without `token_type` an error, as RFC 6749 §5.1 requires. By default,
            /// a missing `token_type` means `Bearer`.
            pub fn strict_token_type(mut self) -> Self {
                self.client.leniency.strict_token_type = true;
                self
            }

            /// Adds a value of `token_type` that means `Bearer`, ignoring case: `BearerToken` (Apigee),
            /// `Application Access Token` (eBay). By default, every type except `Bearer` is an error.
            pub fn bearer_alias(mut self, token_type: impl Into<String>) -> Self {
                self.client.leniency.bearer_aliases.push(token_type.into());
                self
            }

            /// Sets the authentication scheme on requests to the API. Use it for a server that has its
            /// own scheme, or compares the case-insensitive name verbatim (RFC 9110 §11.1). Defaults to
            /// `Bearer`.
            pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
                self.client.leniency.scheme = Some(scheme.into());
                self
            }
        }
    };
}
pub(crate) use client_setters;
