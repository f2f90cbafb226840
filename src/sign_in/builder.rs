//! [`AuthorizationCodeBuilder`].

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    authorization_code::{AuthorizationCode, Config},
    callback::OF_ANSWERS,
    pkce::Method,
};
use crate::{
    client::{
        ClientAuth, ClientSettings, Issuer, Params, Place, Placement, RequestKind, check_scopes,
        client_setters, scopes,
    },
    error::ConfigError,
    secure_url,
    session::store::{ErasedStore, OnStoreError, StoreError, TokenStore},
};

impl AuthorizationCode {
    /// Starts with what every client has: the server's two endpoints, in full, and the client's id.
    /// Nothing is checked until [`build`](AuthorizationCodeBuilder::build).
    pub fn builder(
        authorization_url: impl Into<String>,
        token_url: impl Into<String>,
        client_id: impl Into<String>,
    ) -> AuthorizationCodeBuilder {
        let place = Place::At(Ok(token_url.into()));
        let builder = AuthorizationCodeBuilder::new(place, client_id.into());
        builder.authorization_url(Ok(authorization_url.into()))
    }

    /// Starts with the server's [issuer](Issuer) instead of its endpoints: where those are, how the
    /// client proves itself there unless [`client_auth`](AuthorizationCodeBuilder::client_auth)
    /// says so, and whether logins are [pushed](Self::start), is asked for with the first login, or
    /// the first token (RFC 8414).
    ///
    /// ```
    /// use bearer_auth::AuthorizationCode;
    ///
    /// let auth = AuthorizationCode::discover("https://idp.example", "client-id")
    ///     .redirect_uri("https://app.example/callback")
    ///     .scope("openid offline_access")
    ///     .build()?;
    /// # Ok::<(), bearer_auth::ConfigError>(())
    /// ```
    pub fn discover(
        issuer: impl Into<Issuer>,
        client_id: impl Into<String>,
    ) -> AuthorizationCodeBuilder {
        AuthorizationCodeBuilder::new(Place::Of(issuer.into()), client_id.into())
    }
}

/// See [`AuthorizationCode::builder`].
#[must_use]
pub struct AuthorizationCodeBuilder {
    client: ClientSettings,
    redirect_uri: String,
    scopes: Vec<String>,
    token_scopes: Vec<String>,
    params: Params,
    token_params: Params,
    challenge: Result<Method, ConfigError>,
    store: Option<Arc<dyn ErasedStore>>,
    warn: OnStoreError,
    /// The provider cannot do without redirect URI and scope, although the grant can.
    wants_both: bool,
}

client_setters!(AuthorizationCodeBuilder);

impl AuthorizationCodeBuilder {
    fn new(place: Place, client_id: String) -> Self {
        Self {
            client: ClientSettings::new(place, client_id, SecretString::default()),
            redirect_uri: String::new(),
            scopes: Vec::new(),
            token_scopes: Vec::new(),
            params: Params::default(),
            token_params: Params::default(),
            challenge: Ok(Method::S256),
            store: None,
            warn: Arc::new(|_| {}),
            wants_both: false,
        }
    }

    pub(crate) fn require_redirect_uri_and_scope(mut self) -> Self {
        self.wants_both = true;
        self
    }

    fn authorization_url(mut self, url: Result<String, ConfigError>) -> Self {
        self.client.server.authorization_url = Some(url);
        self
    }

    /// As [`AuthorizationCode::builder`], with endpoints below a base URL.
    pub(crate) fn below(
        base: &str,
        authorization_path: &str,
        token_path: &str,
        client_id: impl Into<String>,
    ) -> Self {
        let join = |path| secure_url::join("base", base, path);
        Self::new(Place::At(join(token_path)), client_id.into())
            .authorization_url(join(authorization_path))
    }

    /// The client's secret. Default: none, as programs have that people install (RFC 8252 §8.5): a
    /// secret that many know is none, and PKCE protects their logins.
    pub fn client_secret(mut self, secret: impl Into<SecretString>) -> Self {
        self.client.client_secret = secret.into();
        self
    }

    /// Where the server sends people back to, as it is registered there: sent to the letter in both
    /// requests (RFC 6749 §4.1.3). Default: none is sent, for servers that have exactly one
    /// registered; a login on loopback makes one.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uri = uri.into();
        self
    }

    /// Scopes to ask for, separated by spaces (RFC 6749 §3.3); further calls add to them. Default:
    /// none are sent, and the server decides. Many servers give a refresh token only with
    /// `offline_access`.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// Scopes to send with the code as well, as Microsoft's servers understand it: those of the one
    /// API that the token is for, out of more that people have consented to. Default: none.
    pub fn token_scope(mut self, scope: impl AsRef<str>) -> Self {
        self.token_scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// A further parameter of the authorization URL: `prompt`, `audience`; several `resource`s are
    /// several parameters. Whoever sees the URL sees it.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.params.push(name, value);
        self
    }

    /// A further parameter of the token request.
    pub fn token_param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.token_params.push(name, value);
        self
    }

    /// The code challenge method as a configuration spells it: `S256`, `SHA256` or `SHA-256`, all
    /// of which are `S256` on the wire (RFC 7636 §4.3), the default.
    pub fn code_challenge_method(mut self, name: impl AsRef<str>) -> Self {
        self.challenge = Method::parse(name.as_ref());
        self
    }

    /// The verifier itself as its challenge (`plain`), for a server that knows nothing better:
    /// whoever sees the authorization URL can use the code.
    pub fn insecure_plain_challenge(mut self) -> Self {
        self.challenge = Ok(Method::Plain);
        self
    }

    /// No PKCE, for a server that refuses parameters it does not know. Only with a client secret
    /// (RFC 9700 §2.1.1).
    pub fn without_pkce(mut self) -> Self {
        self.challenge = Ok(Method::Off);
        self
    }

    /// The server's issuer (RFC 8414 §2): an answer that says to be from another is refused (RFC
    /// 9207). Compared as it is. Assertions of the client, if it signs any, are addressed to it.
    ///
    /// [`discover`](AuthorizationCode::discover) knows it: there, it says that an answer may leave
    /// it out whatever the metadata promise.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.client.server.issuer = Some(issuer.into());
        self.client.server.issuer_is_sent.get_or_insert(false);
        self
    }

    /// As [`issuer`](Self::issuer), and the server always says who it is
    /// (`authorization_response_iss_parameter_supported`, RFC 9207 §3): an answer that does not is
    /// refused.
    pub fn issuer_always_sent(mut self, issuer: impl Into<String>) -> Self {
        self.client.server.issuer_is_sent = Some(true);
        self.issuer(issuer)
    }

    /// Where the server is told that a session is over (RFC 7009), by
    /// [`Session::logout`](crate::Session::logout). Default: where its metadata say, and
    /// without any it is not told.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.client.server.revocation_url = Some(url.into());
        self
    }

    /// Where the parameters of a login are sent beforehand (pushed authorization requests, RFC
    /// 9126), so that no browser sees or changes them. Default: where the server's metadata say,
    /// and without any they travel with the browser.
    pub fn pushed_request_url(mut self, url: impl Into<String>) -> Self {
        self.client.server.pushed_request_url = Some(url.into());
        self
    }

    /// Parameters of logins travel with the browser, although the server's metadata offer to take
    /// them beforehand. If they demand it, starting a login is an error.
    pub fn without_pushed_requests(mut self) -> Self {
        self.client.server.never_push = true;
        self
    }

    /// Where the session is kept: the one session, which the next login replaces. Default: each
    /// login has a [`MemoryStore`](crate::store::MemoryStore) of its own, so that one client serves
    /// many people, and sessions end with the process; with
    /// [`with_store`](AuthorizationCode::with_store), each person has a store.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Called when the [`store`](Self::store) fails; the session goes on without it. Default:
    /// nobody is told.
    pub fn on_store_error(mut self, warn: impl Fn(&StoreError) + Send + Sync + 'static) -> Self {
        self.warn = Arc::new(warn);
        self
    }

    /// Checks everything. Does no I/O.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name, with the remedy.
    pub fn build(self) -> Result<AuthorizationCode, ConfigError> {
        let is_public = self.client.client_secret.expose_secret().is_empty();
        let default = if is_public {
            ClientAuth::none()
        } else {
            ClientAuth::basic()
        };
        let server = self.client.build(default)?;
        let challenge = self.challenge?;
        let auth = &server.client.auth;
        let is_public = (is_public && !auth.has_key()) || auth.is_none();
        if challenge == Method::Off && is_public {
            return Err(ConfigError::new(
                "without_pkce",
                "a client without a secret has nothing else to protect its codes (RFC 9700 §2.1.1)",
            ));
        }
        if self.wants_both && self.redirect_uri.is_empty() {
            let problem = "empty; this provider wants the one that the client is registered with";
            return Err(ConfigError::new("redirect_uri", problem));
        }
        if self.wants_both && self.scopes.is_empty() {
            let problem = "empty; this provider wants at least one";
            return Err(ConfigError::new("scope", problem));
        }
        check_redirect_uri(&self.redirect_uri)?;
        check_scopes("scope", &self.scopes)?;
        check_scopes("token_scope", &self.token_scopes)?;
        let kind = RequestKind::Login;
        self.params.check(kind, Placement::Query, &[])?;
        self.token_params.check(kind, Placement::Body, &[])?;
        server.check_token_query(&self.token_params, kind, |_| false)?;
        if let Some(url) = server.configured().and_then(|it| it.authorization.as_ref()) {
            let field = "authorization_url";
            self.params.check_query(field, url, kind, |_| false)?;
        }
        Ok(AuthorizationCode(Arc::new(Config {
            server: Arc::new(server),
            redirect_uri: self.redirect_uri,
            scopes: self.scopes,
            token_scopes: self.token_scopes,
            params: self.params,
            token_params: self.token_params,
            challenge,
            store: self.store,
            warn: self.warn,
        })))
    }
}

/// RFC 6749 §3.1.2, RFC 8252 §7: absolute, without a fragment; `https`, a scheme of the program's
/// own in the form of a domain name read backwards, or `http` to this machine.
fn check_redirect_uri(uri: &str) -> Result<(), ConfigError> {
    let error = |problem: &'static str| Err(ConfigError::new("redirect_uri", problem));
    if uri.is_empty() {
        return Ok(());
    }
    // The parser passes over blanks and backslashes, which the server's comparison does not.
    let odd = |b: u8| !b.is_ascii_graphic() || b == b'\\';
    if uri.bytes().any(odd) {
        return error("has a character that no URI has (RFC 3986): escape it with `%`");
    }
    let Ok(url) = Url::parse(uri) else {
        return error("not an absolute URI, such as `https://app.example/callback`");
    };
    if secure_url::has_userinfo(&url) {
        return error(secure_url::USERINFO);
    }
    if uri.contains('#') {
        return error("has a `#fragment`, which no answer can have (RFC 6749 §3.1.2)");
    }
    let mut names = url.query_pairs().map(|(name, _)| name);
    if names.any(|name| OF_ANSWERS.contains(&&*name)) {
        return error("its query has a parameter that answers have, too: give it another name");
    }
    match url.scheme() {
        "https" | "http" if !uri.contains("://") => {
            error("not an absolute URI, such as `https://app.example/callback`")
        }
        "https" => Ok(()),
        "http" if secure_url::is_loopback(&url) => Ok(()),
        "http" => error("a code does not travel over plain http (http is for loopback)"),
        scheme if scheme.contains('.') => Ok(()),
        _ => error(
            "a scheme of one's own is a domain name read backwards, such as `com.example.app` \
             (RFC 8252 §7.1)",
        ),
    }
}

/// Without URLs and parameters, which have not been checked for secrets yet.
impl fmt::Debug for AuthorizationCodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCodeBuilder")
            .field("client_id", &self.client.client_id)
            .finish_non_exhaustive()
    }
}
