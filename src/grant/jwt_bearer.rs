//! [`JwtBearer`]: the JWT bearer grant (RFC 7523 §2.1).

use std::{fmt, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

#[cfg(feature = "redis")]
use crate::token::TokenKey;
use crate::{
    client::{
        ClientAuth, ClientSettings, Form, Issuer, Params, Place, Placement, RequestKind, Server,
        SigningKey,
        auth::assertion::{REGISTERED, Settings, Signer, Statement, assertion},
        check_scopes, client_setters, scopes, unbuildable,
    },
    clock::Clock,
    error::{ConfigError, Error},
    token::{TokenRequest, TokenResponse, TokenSource},
};

/// The maximum lifetime of an assertion, which is Google's maximum.
const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The JWT bearer grant (RFC 7523 §2.1, RFC 7521 §4.1): signs an assertion with a key that the server
/// trusts, and exchanges it for a token. Google's service accounts use it:
///
/// ```
/// use bearer_auth::{BearerAuthLayer, ConfigError, JwtBearer, SigningKey};
///
/// // `private_key`, `private_key_id` and `client_email` of the account's JSON file.
/// # fn layer(private_key: String, private_key_id: &str, client_email: &str) -> Result<BearerAuthLayer, ConfigError> {
/// let key = SigningKey::from_pem(private_key)?.key_id(private_key_id);
/// let source = JwtBearer::builder("https://oauth2.googleapis.com/token", key)
///     .issuer(client_email)
///     .claim("scope", "https://www.googleapis.com/auth/cloud-platform")
///     .build()?;
/// let auth = BearerAuthLayer::for_api("https://storage.googleapis.com/", source)?;
/// # Ok(auth) }
/// ```
///
/// Each token request has a new JWT, the assertion. Besides the claims that are set here, `jti` is 128
/// random bits, and `exp` is a [minute](JwtBearerBuilder::lifetime) after `iat`. This grant has no
/// refresh token (RFC 7521 §4.1).
///
/// A server that rejects the assertion returns `invalid_grant`, a permanent error. Check the registered
/// key, the claims, and this machine's clock.
#[derive(Clone)]
pub struct JwtBearer {
    server: Arc<Server>,
    grant: Arc<Grant>,
}

struct Grant {
    key: SigningKey,
    issuer: String,
    subject: Option<String>,
    claims: Vec<(String, Value)>,
    assertion: Settings,
    scopes: Vec<String>,
    params: Params,
}

impl JwtBearer {
    /// Returns a builder for a token endpoint, by its full URL, and the signing key.
    /// [`build`](JwtBearerBuilder::build) checks the settings.
    pub fn builder(token_url: impl Into<String>, key: SigningKey) -> JwtBearerBuilder {
        JwtBearerBuilder::new(Place::At(Ok(token_url.into())), key)
    }

    /// Returns a builder for a server, by its [issuer](Issuer). The first token request fetches the
    /// metadata (RFC 8414), which contain the token endpoint. `aud` defaults to the issuer.
    ///
    /// ```
    /// use bearer_auth::{ConfigError, JwtBearer, SigningKey};
    ///
    /// # fn source(key: SigningKey) -> Result<JwtBearer, ConfigError> {
    /// let source = JwtBearer::discover("https://idp.example", key)
    ///     .issuer("https://our-own.example")
    ///     .subject("ada@example.com")
    ///     .scope("orders:read")
    ///     .build()?;
    /// # Ok(source) }
    /// ```
    pub fn discover(issuer: impl Into<Issuer>, key: SigningKey) -> JwtBearerBuilder {
        JwtBearerBuilder::new(Place::Of(issuer.into()), key)
    }
}

#[cfg(feature = "redis")]
impl JwtBearer {
    /// Returns the key of its tokens for a [`SharedSource`](crate::redis::SharedSource).
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn token_key(&self) -> TokenKey {
        let Grant {
            issuer,
            subject,
            claims,
            assertion,
            scopes,
            params,
            key: _,
        } = &*self.grant;
        let claims: Vec<_> = claims
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_string()))
            .collect();
        let claims = claims.iter();
        self.server
            .digest("jwt bearer")
            .with(issuer)
            .with_all(subject)
            .with_all(&assertion.audience)
            .with_pairs(claims.map(|(name, value)| (*name, value.as_bytes())))
            .with_all(scopes)
            .with_pairs(params.exposed())
            .done()
    }
}

impl TokenSource for JwtBearer {
    async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
        let grant = &self.grant;
        let endpoints = self.server.endpoints().await?;
        let statement = Statement {
            issuer: &grant.issuer,
            subject: grant.subject.as_deref(),
            audience: endpoints.token.audience(),
            claims: &grant.claims,
        };
        let now = Clock::default().system_time();
        let assertion = assertion(Signer::Key(&grant.key), &grant.assertion, statement, now)
            .map_err(unbuildable)?;
        let mut form = Form::default();
        form.push("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
        form.push("assertion", &assertion);
        form.push("scope", &grant.scopes.join(" "));
        grant.params.add_to(&mut form);
        endpoints.token.request_token(form).await
    }
}

/// Omits the claims, which may be personal data.
impl fmt::Debug for JwtBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtBearer")
            .field("server", &self.server)
            .field("key", &self.grant.key)
            .field("issuer", &self.grant.issuer)
            .finish_non_exhaustive()
    }
}

/// Builds a [`JwtBearer`]: see [`JwtBearer::builder`].
#[must_use]
pub struct JwtBearerBuilder {
    client: ClientSettings,
    /// Whether [`client`](Self::client) was called.
    has_client: bool,
    grant: Grant,
}

client_setters!(JwtBearerBuilder);

impl JwtBearerBuilder {
    fn new(place: Place, key: SigningKey) -> Self {
        Self {
            client: ClientSettings::new(place, String::new(), SecretString::default()),
            has_client: false,
            grant: Grant {
                key,
                issuer: String::new(),
                subject: None,
                claims: Vec::new(),
                assertion: Settings::default(),
                scopes: Vec::new(),
                params: Params::default(),
            },
        }
    }

    /// Sets `iss` (RFC 7523 §3), the owner of the key: the e-mail address of a Google service account,
    /// the client id with other servers. Required; not to be confused with the server's issuer.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.grant.issuer = issuer.into();
        self
    }

    /// Sets `sub` (RFC 7523 §3), the user for whom the owner of the key may act. Defaults to none, as
    /// Google requires for a service account's own tokens. Other servers expect the value of `iss`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.grant.subject = Some(subject.into());
        self
    }

    /// Sets `aud` (RFC 7523 §3), sent verbatim. Defaults to the server's issuer with
    /// [`discover`](JwtBearer::discover), otherwise to the token endpoint's URL.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.grant.assertion.audience = Some(audience.into());
        self
    }

    /// Adds a claim to the assertion: a string, or any other JSON. The claims that the crate sets
    /// (`aud`, `exp`, `iat`, `iss`, `jti`, `nbf`, `sub`), and a claim that is added twice, are an error
    /// of [`build`](Self::build).
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.grant.claims.push((name.into(), value.into()));
        self
    }

    /// Sets the lifetime of an assertion (`exp`, RFC 7523 §3): whole seconds, from 1 s to an hour.
    /// Defaults to 60 s. The server sets the lifetime of the token.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.grant.assertion.lifetime = Some(lifetime);
        self
    }

    /// Sets the `typ` of the assertion's header (RFC 7519 §5.1): `authorization-grant+jwt` for servers
    /// that follow draft-ietf-oauth-rfc7523bis, or `""` for none. Defaults to `JWT`, as some servers
    /// accept nothing else.
    pub fn assertion_type(mut self, typ: impl Into<String>) -> Self {
        self.grant.assertion.typ = Some(typ.into());
        self
    }

    /// Adds scopes to the token request, separated by spaces (RFC 7521 §4.1). Google requires them as a
    /// [`claim`](Self::claim) of the assertion instead. Defaults to none.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.grant.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// Adds a parameter to the token request. One that has its own setter, or that is added twice, is
    /// an error of [`build`](Self::build).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.grant.params.push(name, value);
        self
    }

    /// Sets the client id and secret, `""` for a client without a secret. Use it for servers that also
    /// require client authentication (RFC 7523 §2.1). Defaults to none, as for Google.
    pub fn client(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> Self {
        self.client.client_id = client_id.into();
        self.client.client_secret = client_secret.into();
        self.has_client = true;
        self
    }

    /// Checks the settings. Does no I/O.
    ///
    /// # Errors
    ///
    /// The first invalid setting, by name, with the remedy.
    pub fn build(mut self) -> Result<JwtBearer, ConfigError> {
        self.client.anonymous = !self.has_client && self.client.auth.is_empty();
        let default = match self.client.client_secret.expose_secret().is_empty() {
            true => ClientAuth::none(),
            false => ClientAuth::basic(),
        };
        let server = self.client.build(default)?;
        check_grant(&self.grant, &server)?;
        Ok(JwtBearer {
            server: Arc::new(server),
            grant: Arc::new(self.grant),
        })
    }
}

/// Omits the URL, which may contain secrets until it is checked.
impl fmt::Debug for JwtBearerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtBearerBuilder")
            .field("key", &self.grant.key)
            .field("issuer", &self.grant.issuer)
            .finish_non_exhaustive()
    }
}

fn check_grant(grant: &Grant, server: &Server) -> Result<(), ConfigError> {
    grant.key.check()?;
    if grant.issuer.is_empty() {
        let problem = "missing; set `iss`, the owner of the key as registered with the server";
        return Err(ConfigError::new("issuer", problem));
    }
    if grant.subject.as_deref().is_some_and(str::is_empty) {
        return Err(ConfigError::new("subject", "empty; leave it out"));
    }
    grant
        .assertion
        .check(["audience", "lifetime"], MAX_LIFETIME)?;
    for (at, (name, _)) in grant.claims.iter().enumerate() {
        if name.is_empty() {
            return Err(ConfigError::new("claim", "a claim's name is empty"));
        }
        if REGISTERED.contains(&name.as_str()) {
            let problem = format!("the crate sets `{name}`; use its setter, or leave it out");
            return Err(ConfigError::new("claim", problem));
        }
        if grant.claims.iter().take(at).any(|(known, _)| known == name) {
            let problem = format!("`{name}` is set twice");
            return Err(ConfigError::new("claim", problem));
        }
    }
    check_scopes("scope", &grant.scopes)?;
    let own = ["assertion"];
    grant
        .params
        .check("param", RequestKind::Grant, Placement::Body, &own)?;
    server.check_token_query(&grant.params, RequestKind::Grant, |name| match name {
        "assertion" => true,
        "scope" => !grant.scopes.is_empty(),
        _ => false,
    })
}
