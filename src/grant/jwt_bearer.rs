//! [`JwtBearer`]: a JWT of one's own making is exchanged for a token (RFC 7523 §2.1).

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

/// The longest life of an assertion: the longest that Google takes.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The JWT bearer grant (RFC 7523 §2.1, RFC 7521 §4.1): whoever has a key that the server trusts
/// signs who asks, and for whom, and gets a token for that. Google's service accounts ask so:
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
/// Each request has a JWT of its own, the assertion: beside what is set here, `jti` is 128 random
/// bits, and `exp` is a [minute](JwtBearerBuilder::lifetime) after `iat`. There is no refresh token
/// in this grant (RFC 7521 §4.1): a new token is asked for with a new assertion.
///
/// A server that refuses the assertion answers `invalid_grant`, which stays until somebody changes
/// something: the key that the server knows, what the assertion says, or this machine's clock.
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
    /// Starts with the token endpoint's URL in full, and the key that signs. Nothing is checked
    /// until [`build`](JwtBearerBuilder::build).
    pub fn builder(token_url: impl Into<String>, key: SigningKey) -> JwtBearerBuilder {
        JwtBearerBuilder::new(Place::At(Ok(token_url.into())), key)
    }

    /// Starts with the server's [issuer](Issuer) instead of its token endpoint: where that is, is
    /// asked for with the first token (RFC 8414). Assertions are then addressed to the issuer.
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
    /// Names its tokens among those of others: see [`SharedSource`](crate::redis::SharedSource).
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
        endpoints.token.ask(form).await
    }
}

/// Without the claims, which are about people.
impl fmt::Debug for JwtBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtBearer")
            .field("server", &self.server)
            .field("key", &self.grant.key)
            .field("issuer", &self.grant.issuer)
            .finish_non_exhaustive()
    }
}

/// See [`JwtBearer::builder`].
#[must_use]
pub struct JwtBearerBuilder {
    client: ClientSettings,
    /// Whether the client was named.
    named: bool,
    grant: Grant,
}

client_setters!(JwtBearerBuilder);

impl JwtBearerBuilder {
    fn new(place: Place, key: SigningKey) -> Self {
        Self {
            client: ClientSettings::new(place, String::new(), SecretString::default()),
            named: false,
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

    /// Who signs (`iss`, RFC 7523 §3), as the server knows the owner of the key: the e-mail address
    /// of a Google service account, the client id at others. Not the server's issuer. There is no
    /// default.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.grant.issuer = issuer.into();
        self
    }

    /// For whom the token is (`sub`, RFC 7523 §3): a user whom the server lets the owner of the key
    /// act for. Default: the assertion has none, as Google wants it of a service account that asks
    /// for itself; others want `iss` here once more.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.grant.subject = Some(subject.into());
        self
    }

    /// To whom the assertion is addressed (`aud`, RFC 7523 §3), to the letter. Default: the server's
    /// issuer with [`discover`](JwtBearer::discover), and the token endpoint's URL otherwise.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.grant.assertion.audience = Some(audience.into());
        self
    }

    /// A further claim of the assertion: a text, or any other JSON. Those that have a setter of
    /// their own or are made for each assertion (`aud`, `exp`, `iat`, `iss`, `jti`, `nbf`, `sub`),
    /// and a name given twice, are an error of [`build`](Self::build).
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.grant.claims.push((name.into(), value.into()));
        self
    }

    /// How long an assertion is good (`exp`, RFC 7523 §3), in whole seconds, from 1 s to an hour.
    /// Default: 60 s. How long the token is good, the server says.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.grant.assertion.lifetime = Some(lifetime);
        self
    }

    /// The `typ` in the assertion's header (RFC 7519 §5.1): `authorization-grant+jwt` for servers
    /// that go by draft-ietf-oauth-rfc7523bis, or `""` for none at all. Default: `JWT`, since some
    /// servers take nothing else.
    pub fn assertion_type(mut self, typ: impl Into<String>) -> Self {
        self.grant.assertion.typ = Some(typ.into());
        self
    }

    /// Scopes to ask for beside the assertion, separated by spaces (RFC 7521 §4.1); further calls
    /// add to them. Google wants them inside: [`claim`](Self::claim). Default: none are sent.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.grant.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// A further parameter of the token request. Those that have a setter of their own, and a name
    /// given twice, are an error of [`build`](Self::build).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.grant.params.push(name, value);
        self
    }

    /// The client that asks, for servers that want to know it besides (RFC 7523 §2.1); the secret is
    /// `""` if it has none. Default: nothing is said of a client, as with Google.
    pub fn client(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> Self {
        self.client.client_id = client_id.into();
        self.client.client_secret = client_secret.into();
        self.named = true;
        self
    }

    /// Checks everything. Does no I/O.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name, with the remedy.
    pub fn build(mut self) -> Result<JwtBearer, ConfigError> {
        self.client.anonymous = !self.named && self.client.auth.is_empty();
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

/// Without the URL, which has not been checked for secrets yet.
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
        let problem = "none; give `iss`: who signs, as the server knows the owner of the key";
        return Err(ConfigError::new("issuer", problem));
    }
    if grant.subject.as_deref().is_some_and(str::is_empty) {
        return Err(ConfigError::new("subject", "empty; leave it out"));
    }
    grant.assertion.check(["audience", "lifetime"], LONGEST)?;
    for (at, (name, _)) in grant.claims.iter().enumerate() {
        if name.is_empty() {
            return Err(ConfigError::new("claim", "a claim without a name"));
        }
        if REGISTERED.contains(&name.as_str()) {
            let problem = format!("`{name}` has a setter of its own, or is made anew each time");
            return Err(ConfigError::new("claim", problem));
        }
        if grant.claims.iter().take(at).any(|(known, _)| known == name) {
            let problem = format!("`{name}` is there twice");
            return Err(ConfigError::new("claim", problem));
        }
    }
    check_scopes("scope", &grant.scopes)?;
    let own = ["assertion"];
    grant
        .params
        .check(RequestKind::Grant, Placement::Body, &own)?;
    server.check_token_query(&grant.params, RequestKind::Grant, |name| match name {
        "assertion" => true,
        "scope" => !grant.scopes.is_empty(),
        _ => false,
    })
}
