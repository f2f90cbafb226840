//! [`AuthorizationCodeBuilder`]: the settings of an [`AuthorizationCode`], and their checks.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    authorization_code::{AuthorizationCode, Config},
    callback::RESPONSE_PARAMETERS,
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
    /// Returns a builder for the server's two endpoints, as full URLs, and the client's id.
    /// [`build`](AuthorizationCodeBuilder::build) checks them.
    pub fn builder(
        authorization_url: impl Into<String>,
        token_url: impl Into<String>,
        client_id: impl Into<String>,
    ) -> AuthorizationCodeBuilder {
        let place = Place::At(Ok(token_url.into()));
        let builder = AuthorizationCodeBuilder::new(place, client_id.into());
        builder.authorization_url(Ok(authorization_url.into()))
    }

    /// Returns a builder for the server's [issuer](Issuer). The first login or token request fetches the
    /// server's metadata (RFC 8414): the endpoints, how the client authenticates unless
    /// [`client_auth`](AuthorizationCodeBuilder::client_auth) is set, and whether logins are
    /// [pushed](Self::start).
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

/// A builder for [`AuthorizationCode`].
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
    /// The provider requires a redirect URI and a scope, which are optional in the RFC.
    requires_both: bool,
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
            requires_both: false,
        }
    }

    pub(crate) fn require_redirect_uri_and_scope(mut self) -> Self {
        self.requires_both = true;
        self
    }

    fn authorization_url(mut self, url: Result<String, ConfigError>) -> Self {
        self.client.server.authorization_url = Some(url);
        self
    }

    /// Like [`AuthorizationCode::builder`], with endpoints below a base URL.
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

    /// Sets the client's secret. Defaults to none, for installed programs: they cannot keep a secret
    /// (RFC 8252 §8.5), and PKCE protects their logins.
    pub fn client_secret(mut self, secret: impl Into<SecretString>) -> Self {
        self.client.client_secret = secret.into();
        self
    }

    /// Sets the redirect URI as it is registered at the server. Both requests carry it verbatim (RFC 6749
    /// §4.1.3). By default none is sent, for clients with one registered URI; a login on loopback makes
    /// one.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uri = uri.into();
        self
    }

    /// Adds scopes, separated by spaces (RFC 6749 §3.3). By default none are sent, and the server
    /// decides. Many servers issue a refresh token only with `offline_access`.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// Adds scopes to the token request, an extension of Microsoft's: of the scopes that the user has
    /// consented to, those of the API that the token is for. Defaults to none.
    pub fn token_scope(mut self, scope: impl AsRef<str>) -> Self {
        self.token_scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// Adds a parameter of the authorization request, such as `prompt`, `audience`, or (repeatedly)
    /// `resource`. It is visible in the authorization URL, unless the request is pushed.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.params.push(name, value);
        self
    }

    /// Adds a parameter of the token request.
    pub fn token_param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.token_params.push(name, value);
        self
    }

    /// Sets the code challenge method by name: `S256`, `SHA256` or `SHA-256`. All of them are `S256` on
    /// the wire (RFC 7636 §4.3). Defaults to `S256`.
    pub fn code_challenge_method(mut self, name: impl AsRef<str>) -> Self {
        self.challenge = Method::parse(name.as_ref());
        self
    }

    /// Sends the verifier itself as the challenge (`plain`), for a server without `S256`. A reader of the
    /// authorization URL can then use the code.
    pub fn insecure_plain_challenge(mut self) -> Self {
        self.challenge = Ok(Method::Plain);
        self
    }

    /// Switches PKCE off, for a server that rejects unknown parameters. Only for clients that
    /// authenticate (RFC 9700 §2.1.1).
    pub fn without_pkce(mut self) -> Self {
        self.challenge = Ok(Method::Off);
        self
    }

    /// Sets the server's issuer (RFC 8414 §2). A callback with another `iss` is rejected (RFC 9207); the
    /// comparison is verbatim. The issuer is also the audience of the client's signed assertions.
    ///
    /// With [`discover`](AuthorizationCode::discover) the issuer is known. Setting it there allows
    /// callbacks without `iss`, even if the metadata promise one.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.client.server.issuer = Some(issuer.into());
        self.client.server.issuer_is_sent.get_or_insert(false);
        self
    }

    /// Like [`issuer`](Self::issuer), for a server that always sends `iss`
    /// (`authorization_response_iss_parameter_supported`, RFC 9207 §3): a callback without it is
    /// rejected.
    pub fn issuer_always_sent(mut self, issuer: impl Into<String>) -> Self {
        self.client.server.issuer_is_sent = Some(true);
        self.issuer(issuer)
    }

    /// Sets the revocation endpoint (RFC 7009), for [`Session::logout`](crate::Session::logout). Defaults
    /// to the one in the server's metadata; without one, tokens are not revoked.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.client.server.revocation_url = Some(url.into());
        self
    }

    /// Sets the endpoint for pushed authorization requests (RFC 9126): the browser neither sees nor
    /// changes the parameters. Defaults to the one in the server's metadata; without one, the parameters
    /// are in the URL.
    pub fn pushed_request_url(mut self, url: impl Into<String>) -> Self {
        self.client.server.pushed_request_url = Some(url.into());
        self
    }

    /// Switches pushed authorization requests off, even if the server's metadata offer them. If the
    /// metadata require them, starting a login is an error.
    pub fn without_pushed_requests(mut self) -> Self {
        self.client.server.never_push = true;
        self
    }

    /// Sets the store of one session, which the next login replaces. Defaults to a new
    /// [`MemoryStore`](crate::store::MemoryStore) for each login: one client serves many users, and
    /// sessions end with the process. To give each user a store, use
    /// [`with_store`](AuthorizationCode::with_store).
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets a callback for errors of the [`store`](Self::store). The session continues without it, in
    /// memory. Defaults to none.
    pub fn on_store_error(
        mut self,
        callback: impl Fn(&StoreError) + Send + Sync + 'static,
    ) -> Self {
        self.warn = Arc::new(callback);
        self
    }

    /// Returns the configured client. Does no I/O.
    ///
    /// # Errors
    ///
    /// A setting is invalid: the error names the first such setting, and the remedy.
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
                "a client that does not authenticate needs PKCE (RFC 9700 §2.1.1): \
                 set a client secret, or keep PKCE",
            ));
        }
        if self.requires_both && self.redirect_uri.is_empty() {
            let problem = "empty; this provider requires the client's registered one";
            return Err(ConfigError::new("redirect_uri", problem));
        }
        if self.requires_both && self.scopes.is_empty() {
            let problem = "empty; this provider requires at least one";
            return Err(ConfigError::new("scope", problem));
        }
        check_redirect_uri(&self.redirect_uri)?;
        check_scopes("scope", &self.scopes)?;
        check_scopes("token_scope", &self.token_scopes)?;
        let kind = RequestKind::Login;
        self.params.check("param", kind, Placement::Query, &[])?;
        self.token_params
            .check("token_param", kind, Placement::Body, &[])?;
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

/// Checks a redirect URI (RFC 6749 §3.1.2, RFC 8252 §7): absolute, without a fragment; `https`, a
/// private-use scheme (a reversed domain name), or `http` on loopback.
fn check_redirect_uri(uri: &str) -> Result<(), ConfigError> {
    let error = |problem: &'static str| Err(ConfigError::new("redirect_uri", problem));
    if uri.is_empty() {
        return Ok(());
    }
    // The parser removes blanks and backslashes, so the server would compare another URI.
    let is_invalid = |b: u8| !b.is_ascii_graphic() || b == b'\\';
    if uri.bytes().any(is_invalid) {
        return error("has a character that URIs do not allow (RFC 3986): percent-encode it");
    }
    let Ok(url) = Url::parse(uri) else {
        return error("not an absolute URI, such as `https://app.example/callback`");
    };
    if secure_url::has_userinfo(&url) {
        return error(secure_url::USERINFO);
    }
    if uri.contains('#') {
        return error("has a `#fragment`, which is not allowed (RFC 6749 §3.1.2): remove it");
    }
    let mut names = url.query_pairs().map(|(name, _)| name);
    if names.any(|name| RESPONSE_PARAMETERS.contains(&&*name)) {
        return error("has a query parameter that authorization responses use: rename it");
    }
    match url.scheme() {
        "https" | "http" if !uri.contains("://") => {
            error("not an absolute URI, such as `https://app.example/callback`")
        }
        "https" => Ok(()),
        "http" if secure_url::is_loopback(&url) => Ok(()),
        "http" => error("plain `http` is for loopback only: use `https`"),
        scheme if scheme.contains('.') => Ok(()),
        _ => error(
            "a private-use scheme has to be a reversed domain name, such as `com.example.app` \
             (RFC 8252 §7.1)",
        ),
    }
}

/// Hides URLs and parameters, which have not been checked for secrets yet.
impl fmt::Debug for AuthorizationCodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationCodeBuilder")
            .field("client_id", &self.client.client_id)
            .finish_non_exhaustive()
    }
}
