//! What all grants of a client share: who it is, how it proves itself, and how its token endpoint is
//! asked and understood.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    auth::ClientAuth,
    endpoint::{Client, Parameters, default_client, response::Reading},
    http::HttpClient,
    server::{Place, Server, ServerSettings},
};
use crate::error::ConfigError;

/// The settings of a client, not checked yet.
pub(crate) struct ClientSettings {
    pub(crate) server: ServerSettings,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) auth: Vec<ClientAuth>,
    pub(crate) parameters: Parameters,
    pub(crate) headers: Vec<(String, SecretString)>,
    pub(crate) http: Option<Arc<dyn HttpClient>>,
    pub(crate) reading: Reading,
    /// Nothing is said of the client at all, as some grants can do without.
    pub(crate) unsaid: bool,
}

impl ClientSettings {
    pub(crate) fn new(place: Place, client_id: String, client_secret: SecretString) -> Self {
        Self {
            server: ServerSettings::new(place),
            client_id,
            client_secret,
            auth: Vec::new(),
            parameters: Parameters::default(),
            headers: Vec::new(),
            http: None,
            reading: Reading::default(),
            unsaid: false,
        }
    }

    /// `usual`: how the client proves itself if nothing was said about it.
    pub(crate) fn build(self, usual: ClientAuth) -> Result<Server, ConfigError> {
        let auth_is_told = !self.auth.is_empty();
        let auth = one_auth(self.auth, usual)?;
        if !self.unsaid {
            auth.check(&self.client_id, &self.client_secret)?;
        }
        if self.parameters != Parameters::Body && auth.is_in_body() {
            return Err(ConfigError::new(
                "client_auth",
                "this method would put the secret or the assertion into the URL; \
                 use `basic` or `basic_raw` with parameters in the query",
            ));
        }
        if auth.is_tls() && self.http.is_none() {
            return Err(ConfigError::new(
                "http_client",
                "none; `ClientAuth::tls` wants one with the client's certificate, \
                 such as `ReqwestClient::identity_pem`",
            ));
        }
        if let Some(scheme) = &self.reading.scheme
            && !is_token(scheme)
        {
            return Err(ConfigError::new("scheme", "not a scheme, such as `Bearer`"));
        }
        let client = Client {
            headers: headers(self.headers, self.parameters)?,
            id: self.client_id,
            secret: self.client_secret,
            auth,
            auth_is_told,
            parameters: self.parameters,
            http: match self.http {
                Some(client) => client,
                None => default_client()?,
            },
            reading: self.reading,
        };
        self.server.build(Arc::new(client))
    }
}

fn one_auth(mut methods: Vec<ClientAuth>, usual: ClientAuth) -> Result<ClientAuth, ConfigError> {
    let auth = methods.pop().unwrap_or(usual);
    if methods.is_empty() {
        return Ok(auth);
    }
    Err(ConfigError::new(
        "client_auth",
        "given twice; a request has exactly one method",
    ))
}

/// The scopes of a list, separated by spaces (RFC 6749 §3.3).
pub(crate) fn scopes(list: &str) -> impl Iterator<Item = String> {
    let scopes = list.split(' ').filter(|scope| !scope.is_empty());
    scopes.map(str::to_owned)
}

pub(crate) fn check_scopes(field: &'static str, scopes: &[String]) -> Result<(), ConfigError> {
    if scopes.iter().all(|scope| is_scope_token(scope)) {
        return Ok(());
    }
    Err(ConfigError::new(
        field,
        "has a character that no scope has (RFC 6749 §3.3): \
         a quote, a backslash, a control character or one that is not ASCII",
    ))
}

/// Parameters with a setter or a place of their own, whatever the grant.
const RESERVED: [&str; 6] = [
    "grant_type",
    "scope",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
];

/// Parameters that are secrets, which do not go into a URL.
const SECRET: [&str; 8] = [
    "actor_token",
    "assertion",
    "code",
    "code_verifier",
    "device_code",
    "password",
    "refresh_token",
    "subject_token",
];

/// The names of further parameters. `reserved`: those for which this grant has a setter.
pub(crate) fn check_params<'a>(
    params: &'a [(String, SecretString)],
    place: Parameters,
    reserved: &[&str],
) -> Result<Vec<&'a str>, ConfigError> {
    let mut names: Vec<&'a str> = Vec::new();
    for (name, _) in params {
        if name.is_empty() {
            return Err(ConfigError::new("param", "a parameter without a name"));
        }
        if RESERVED.iter().chain(reserved).any(|known| known == name) {
            let problem = format!("`{name}` has a setter of its own; use that");
            return Err(ConfigError::new("param", problem));
        }
        if place != Parameters::Body && SECRET.contains(&name.as_str()) {
            let problem = format!("`{name}` is a secret, which does not go into a URL");
            return Err(ConfigError::new("param", problem));
        }
        // Several of these are several APIs (RFC 8707 §2).
        if name != "resource" && names.contains(&name.as_str()) {
            let problem = format!("`{name}` is there twice");
            return Err(ConfigError::new("param", problem));
        }
        names.push(name);
    }
    Ok(names)
}

/// The same parameter in the URL's query and in ours would be sent twice. `sent`: whether this grant
/// sends one of that name, beside those that every grant may.
pub(crate) fn check_query(server: &Server, sent: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
    let sent = |name: &str| (name != "scope" && RESERVED.contains(&name)) || sent(name);
    let url = server.told().map(|told| &told.token.url);
    if url.is_some_and(|url| url.query_pairs().any(|(name, _)| sent(&name))) {
        let problem = "its query has a parameter that is sent anyway; take it out";
        return Err(ConfigError::new("token_url", problem));
    }
    Ok(())
}

/// RFC 6749 §3.3: `%x21 / %x23-5B / %x5D-7E`.
fn is_scope_token(scope: &str) -> bool {
    scope
        .bytes()
        .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn headers(
    given: Vec<(String, SecretString)>,
    parameters: Parameters,
) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let error = |problem: &'static str| Err(ConfigError::new("header", problem));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return error("not a header name");
        };
        if name == http::header::AUTHORIZATION {
            return error("`Authorization` is the business of `client_auth`");
        }
        if [http::header::CONTENT_LENGTH, http::header::HOST].contains(&name)
            || name == http::header::TRANSFER_ENCODING
        {
            return error("this header is the HTTP client's business");
        }
        if name == http::header::CONTENT_TYPE && parameters == Parameters::Body {
            return error("the body is a form (RFC 6749 §4.4.2), and its type is said already");
        }
        let bytes = Zeroizing::new(value.expose_secret().as_bytes().to_vec());
        let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)) else {
            return error("a value with a character that no header can carry");
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
