//! [`ClientCredentials`]: a client asks for itself (RFC 6749 §4.4).

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

#[cfg(feature = "redis")]
use crate::token::TokenKey;
use crate::{
    client::{
        Client, ClientAuth, ClientSettings, Form, Issuer, Params, Place, Placement, RequestKind,
        Server, check_scopes, client_setters, scopes,
    },
    error::{ConfigError, Error},
    secure_url,
    token::{TokenRequest, TokenResponse, TokenSource},
};

/// The client credentials grant (RFC 6749 §4.4): a service asks for a token in its own name.
///
/// There is no refresh token in this grant; a new token is asked for in the same way, with the
/// credentials (§4.4.3).
///
/// ```
/// use bearer_auth::{BearerAuthLayer, ClientCredentials};
///
/// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "secret")
///     .scope("orders:read orders:write")
///     .build()?;
/// let auth = BearerAuthLayer::for_api("https://api.example.com/", source)?;
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    server: Arc<Server>,
    grant: Grant,
}

#[derive(Clone, Debug)]
struct Grant {
    grant_type: String,
    scopes: Vec<String>,
    audience: Option<String>,
    resources: Vec<String>,
    params: Params,
}

impl ClientCredentials {
    /// Starts with what every client has: the token endpoint's URL in full, and the credentials.
    /// Nothing is checked until [`build`](ClientCredentialsBuilder::build). An empty secret is let
    /// pass, since some clients have none (RFC 6749 §2.3.1); [`provider`](crate::provider)s that
    /// know better refuse it.
    pub fn builder(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> ClientCredentialsBuilder {
        let place = Place::At(Ok(token_url.into()));
        ClientCredentialsBuilder::new(place, client_id.into(), client_secret.into())
    }

    /// Starts with the server's [issuer](Issuer) instead of its token endpoint: where that is, and
    /// how clients prove themselves there unless
    /// [`client_auth`](ClientCredentialsBuilder::client_auth) says so, is asked for with the first
    /// token (RFC 8414).
    ///
    /// ```
    /// use bearer_auth::ClientCredentials;
    ///
    /// let source = ClientCredentials::discover("https://idp.example", "client-id", "secret")
    ///     .scope("orders:read")
    ///     .build()?;
    /// # Ok::<(), bearer_auth::ConfigError>(())
    /// ```
    pub fn discover(
        issuer: impl Into<Issuer>,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> ClientCredentialsBuilder {
        let place = Place::Of(issuer.into());
        ClientCredentialsBuilder::new(place, client_id.into(), client_secret.into())
    }
}

#[cfg(feature = "redis")]
impl ClientCredentials {
    /// Names its tokens among those of others: see [`SharedSource`](crate::redis::SharedSource).
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn token_key(&self) -> TokenKey {
        let Grant {
            grant_type,
            scopes,
            audience,
            resources,
            params,
        } = &self.grant;
        self.server
            .digest("client credentials")
            .with(grant_type)
            .with_all(scopes)
            .with_all(audience)
            .with_all(resources)
            .with_pairs(params.exposed())
            .done()
    }
}

impl TokenSource for ClientCredentials {
    async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
        let Grant {
            grant_type,
            scopes,
            audience,
            resources,
            params,
        } = &self.grant;
        let mut form = Form::default();
        form.push("grant_type", grant_type);
        form.push("scope", &scopes.join(" "));
        form.push("audience", audience.as_deref().unwrap_or_default());
        for resource in resources {
            form.push("resource", resource);
        }
        params.add_to(&mut form);
        self.server.endpoints().await?.token.ask(form).await
    }
}

/// See [`ClientCredentials::builder`].
#[must_use]
pub struct ClientCredentialsBuilder {
    client: ClientSettings,
    grant: Grant,
    required: Vec<Required>,
}

/// What a provider cannot do without, although the grant can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Required {
    Secret,
    Audience,
    Scope,
}

client_setters!(ClientCredentialsBuilder);

impl ClientCredentialsBuilder {
    fn new(place: Place, client_id: String, client_secret: SecretString) -> Self {
        Self {
            client: ClientSettings::new(place, client_id, client_secret),
            grant: Grant {
                grant_type: "client_credentials".to_owned(),
                scopes: Vec::new(),
                audience: None,
                resources: Vec::new(),
                params: Params::default(),
            },
            required: Vec::new(),
        }
    }

    /// As [`ClientCredentials::builder`], with an endpoint below a base URL.
    pub(crate) fn below(
        base: &str,
        path: &str,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> Self {
        let place = Place::At(secure_url::join("base", base, path));
        Self::new(place, client_id.into(), client_secret.into())
    }

    pub(crate) fn require(mut self, required: Required) -> Self {
        self.required.push(required);
        self
    }

    /// Scopes to ask for, separated by spaces (RFC 6749 §3.3); further calls add to them. Default:
    /// none are sent, and the server decides.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.grant.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// The API that the token is for, as servers such as Auth0 and Usage Engine want it: sent to
    /// the letter. The last call counts.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.grant.audience = Some(audience.into());
        self
    }

    /// The API that the token is for (RFC 8707): an absolute URI without a fragment, sent to the
    /// letter. Further calls add more.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.grant.resources.push(resource.into());
        self
    }

    /// A further parameter of the token request. Those that have a setter of their own, and a name
    /// given twice, are an error of [`build`](Self::build).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.grant.params.push(name, value);
        self
    }

    /// Another `grant_type`, for servers that have their own name for this grant (Zoom:
    /// `account_credentials`) or an extension grant (RFC 6749 §4.5) that takes nothing but
    /// parameters. Not for `password`, which tells the client what only the server may know (RFC
    /// 9700 §2.4).
    pub fn grant_type(mut self, grant_type: impl Into<String>) -> Self {
        self.grant.grant_type = grant_type.into();
        self
    }

    /// Sends the parameters in the URL's query and an empty body, for servers that want it so. Not
    /// with a [`ClientAuth`] that sends the secret as a parameter.
    pub fn params_in_query(mut self) -> Self {
        self.client.placement = Placement::Query;
        self
    }

    /// Asks with GET, the parameters in the query: for servers that want it so. The standard says
    /// POST (RFC 6749 §3.2).
    pub fn use_get(mut self) -> Self {
        self.client.placement = Placement::Get;
        self
    }

    /// Checks everything. Does no I/O.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name, with the remedy.
    pub fn build(self) -> Result<ClientCredentials, ConfigError> {
        let server = self.client.build(ClientAuth::default())?;
        if server.client.auth.is_none() {
            return Err(ConfigError::new(
                "client_auth",
                "client credentials are for clients that can prove themselves; \
                 use `basic`, `basic_raw`, `post`, `tls`, or a signed JWT",
            ));
        }
        check_required(&self.required, &server.client, &self.grant)?;
        check_grant(&self.grant, &server)?;
        Ok(ClientCredentials {
            server: Arc::new(server),
            grant: self.grant,
        })
    }
}

/// Without the URL, which has not been checked for secrets yet.
impl fmt::Debug for ClientCredentialsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentialsBuilder")
            .field("client_id", &self.client.client_id)
            .finish_non_exhaustive()
    }
}

fn check_required(
    required: &[Required],
    client: &Client,
    grant: &Grant,
) -> Result<(), ConfigError> {
    let proves_nothing = client.secret.expose_secret().is_empty() && !client.auth.has_key();
    if required.contains(&Required::Secret) && proves_nothing {
        let problem = "empty; this provider wants the secret of the registered client";
        return Err(ConfigError::new("client_secret", problem));
    }
    if required.contains(&Required::Scope) && grant.scopes.is_empty() {
        let problem = "empty; this provider wants the id of the API that the token is for";
        return Err(ConfigError::new("scope", problem));
    }
    let audience = grant.audience.as_deref().unwrap_or_default();
    if required.contains(&Required::Audience) && audience.is_empty() {
        let problem = "empty; this provider wants the address of the API that the token is for";
        return Err(ConfigError::new("audience", problem));
    }
    Ok(())
}

fn check_grant(grant: &Grant, server: &Server) -> Result<(), ConfigError> {
    let error = |field, problem: &'static str| Err(ConfigError::new(field, problem));
    if grant.grant_type.is_empty() {
        return error("grant_type", "empty; leave it at its default");
    }
    check_scopes("scope", &grant.scopes)?;
    for resource in &grant.resources {
        match Url::parse(resource) {
            Ok(uri) if secure_url::has_userinfo(&uri) => {
                return error("resource", secure_url::USERINFO);
            }
            Ok(uri) if uri.fragment().is_none() => {}
            _ => return error("resource", "not an absolute URI without a `#fragment`"),
        }
    }
    let own = ["audience", "resource"];
    let placement = server.client.placement;
    grant.params.check(RequestKind::Grant, placement, &own)?;
    server.check_token_query(&grant.params, RequestKind::Grant, |name| match name {
        "scope" => !grant.scopes.is_empty(),
        "audience" => grant.audience.is_some(),
        "resource" => !grant.resources.is_empty(),
        _ => false,
    })
}
