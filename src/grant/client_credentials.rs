//! [`ClientCredentials`]: the client credentials grant (RFC 6749 §4.4).

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

/// The client credentials grant (RFC 6749 §4.4): a service requests tokens in its own name.
///
/// This grant has no refresh token (§4.4.3): every token request sends the credentials.
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
    /// Returns a builder for a token endpoint, by its full URL.
    /// [`build`](ClientCredentialsBuilder::build) checks the settings. The secret may be empty, as some
    /// clients have none (RFC 6749 §2.3.1), unless the [`provider`](crate::provider) requires one.
    pub fn builder(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<SecretString>,
    ) -> ClientCredentialsBuilder {
        let place = Place::At(Ok(token_url.into()));
        ClientCredentialsBuilder::new(place, client_id.into(), client_secret.into())
    }

    /// Returns a builder for a server, by its [issuer](Issuer). The first token request fetches the
    /// metadata (RFC 8414), which contain the token endpoint. They also select the authentication
    /// method unless [`client_auth`](ClientCredentialsBuilder::client_auth) is set.
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
    /// Returns the key of its tokens for a [`SharedSource`](crate::redis::SharedSource).
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
        self.server
            .endpoints()
            .await?
            .token
            .request_token(form)
            .await
    }
}

/// Builds [`ClientCredentials`]: see [`ClientCredentials::builder`].
#[must_use]
pub struct ClientCredentialsBuilder {
    client: ClientSettings,
    grant: Grant,
    required: Vec<Required>,
}

/// A setting that a provider requires, although the grant does not.
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

    /// As [`ClientCredentials::builder`], with the endpoint at a path below a base URL.
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

    /// Adds scopes to the token request, separated by spaces (RFC 6749 §3.3). Defaults to none: the
    /// server decides.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.grant.scopes.extend(scopes(scope.as_ref()));
        self
    }

    /// Sets the parameter `audience`, sent verbatim: the API that the token is for. Use it for servers
    /// such as Auth0 and Usage Engine. Defaults to none.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.grant.audience = Some(audience.into());
        self
    }

    /// Adds a `resource` (RFC 8707): the API that the token is for, an absolute URI without a fragment,
    /// sent verbatim.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.grant.resources.push(resource.into());
        self
    }

    /// Adds a parameter to the token request. One that has its own setter, or that is added twice, is
    /// an error of [`build`](Self::build).
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.grant.params.push(name, value);
        self
    }

    /// Sets the `grant_type`. Use it for a server with its own name for this grant (Zoom:
    /// `account_credentials`), or for an extension grant (RFC 6749 §4.5) that needs only parameters.
    /// Do not use `password`: it gives the user's password to the client (RFC 9700 §2.4). Defaults to
    /// `client_credentials`.
    pub fn grant_type(mut self, grant_type: impl Into<String>) -> Self {
        self.grant.grant_type = grant_type.into();
        self
    }

    /// Sends the parameters in the URL's query with an empty body. Use it for servers that require it.
    /// A [`ClientAuth`] that adds parameters is then an error of [`build`](Self::build).
    pub fn params_in_query(mut self) -> Self {
        self.client.placement = Placement::Query;
        self
    }

    /// Sends GET with the parameters in the URL's query. Use it for servers that require it instead of
    /// POST (RFC 6749 §3.2). The restriction of [`params_in_query`](Self::params_in_query) applies.
    pub fn use_get(mut self) -> Self {
        self.client.placement = Placement::Get;
        self
    }

    /// Checks the settings. Does no I/O.
    ///
    /// # Errors
    ///
    /// The first invalid setting, by name, with the remedy.
    pub fn build(self) -> Result<ClientCredentials, ConfigError> {
        let server = self.client.build(ClientAuth::default())?;
        if server.client.auth.is_none() {
            return Err(ConfigError::new(
                "client_auth",
                "this grant requires client authentication; \
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

/// Omits the URL, which may contain secrets until it is checked.
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
    let cannot_authenticate = client.secret.expose_secret().is_empty() && !client.auth.has_key();
    if required.contains(&Required::Secret) && cannot_authenticate {
        let problem = "empty; this provider requires the secret of the registered client";
        return Err(ConfigError::new("client_secret", problem));
    }
    if required.contains(&Required::Scope) && grant.scopes.is_empty() {
        let problem = "empty; this provider requires the id of the API that the token is for";
        return Err(ConfigError::new("scope", problem));
    }
    let audience = grant.audience.as_deref().unwrap_or_default();
    if required.contains(&Required::Audience) && audience.is_empty() {
        let problem = "empty; this provider requires the address of the API that the token is for";
        return Err(ConfigError::new("audience", problem));
    }
    Ok(())
}

fn check_grant(grant: &Grant, server: &Server) -> Result<(), ConfigError> {
    let error = |field, problem: &'static str| Err(ConfigError::new(field, problem));
    if grant.grant_type.is_empty() {
        return error("grant_type", "empty; leave it out for the default");
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
    grant
        .params
        .check("param", RequestKind::Grant, placement, &own)?;
    server.check_token_query(&grant.params, RequestKind::Grant, |name| match name {
        "scope" => !grant.scopes.is_empty(),
        "audience" => grant.audience.is_some(),
        "resource" => !grant.resources.is_empty(),
        _ => false,
    })
}
