//! An authorization server for one client: its endpoints, and how the client authenticates there.
//!
//! Endpoints are configured, or discovered from the metadata of an [`Issuer`] (RFC 8414).
//! Invariants:
//!
//! - A configured value takes precedence over the metadata.
//! - Building does no I/O: the first token request fetches the metadata.
//! - Metadata of another issuer are not used.

use std::{fmt, sync::Arc};

use secrecy::ExposeSecret;
use url::Url;

use super::{
    auth::ClientAuth,
    endpoint::{Client, EndpointKind, TokenEndpoint},
    metadata::{Discovery, Issuer, Metadata},
    params::{Params, Placement, RequestKind},
};
#[cfg(feature = "redis")]
use crate::token::Digest;
use crate::{
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
};

/// The settings of a server, not checked yet.
pub(crate) struct ServerSettings {
    pub(crate) place: Place,
    pub(crate) authorization_url: Option<Result<String, ConfigError>>,
    pub(crate) revocation_url: Option<String>,
    pub(crate) pushed_request_url: Option<String>,
    /// Sends the parameters of logins through the browser, even if the server supports RFC 9126.
    pub(crate) never_push: bool,
    pub(crate) issuer: Option<String>,
    /// Whether every authorization response has `iss` (RFC 9207). `None`: as in the metadata.
    pub(crate) issuer_is_sent: Option<bool>,
}

pub(crate) enum Place {
    /// The token endpoint's URL.
    At(Result<String, ConfigError>),
    Of(Issuer),
}

/// A server, for one client.
pub(crate) struct Server {
    pub(crate) client: Arc<Client>,
    configured: Configured,
    endpoints: EndpointSource,
}

/// Settings that take precedence over the metadata.
struct Configured {
    authorization: Option<Url>,
    revocation: Option<Url>,
    pushed_request: Option<Url>,
    never_push: bool,
    issuer_is_sent: Option<bool>,
}

enum EndpointSource {
    Configured(Arc<Endpoints>),
    Discovered(Discovery),
}

/// The endpoints of a server.
pub(crate) struct Endpoints {
    pub(crate) token: TokenEndpoint,
    pub(crate) authorization: Option<Url>,
    pub(crate) revocation: Option<TokenEndpoint>,
    /// The pushed authorization request endpoint (RFC 9126).
    pub(crate) pushed: Option<TokenEndpoint>,
    /// Whether the server requires pushed authorization requests (RFC 9126 §5).
    pub(crate) requires_pushed_requests: bool,
    /// Whether every authorization response has `iss` (RFC 9207 §3).
    pub(crate) issuer_is_sent: bool,
}

impl ServerSettings {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            authorization_url: None,
            revocation_url: None,
            pushed_request_url: None,
            never_push: false,
            issuer: None,
            issuer_is_sent: None,
        }
    }

    pub(crate) fn build(self, client: Arc<Client>) -> Result<Server, ConfigError> {
        let parse = |field, url: Option<String>| match url {
            Some(url) => secure_url::parse(field, &url).map(Some),
            None => Ok(None),
        };
        let configured = Configured {
            authorization: parse("authorization_url", self.authorization_url.transpose()?)?,
            revocation: parse("revocation_url", self.revocation_url)?,
            pushed_request: parse("pushed_request_url", self.pushed_request_url)?,
            never_push: self.never_push,
            issuer_is_sent: self.issuer_is_sent,
        };
        let endpoints = match self.place {
            Place::At(url) => {
                let url = secure_url::parse("token_url", &url?)?;
                secure_url::uri("token_url", &url)?;
                let auth = client.auth.clone();
                EndpointSource::Configured(Arc::new(configured.endpoints(
                    &client,
                    url,
                    self.issuer,
                    auth,
                )))
            }
            Place::Of(issuer) => {
                if self
                    .issuer
                    .is_some_and(|configured| configured != issuer.name())
                {
                    let problem = "not the issuer passed to `discover`; leave it out";
                    return Err(ConfigError::new("issuer", problem));
                }
                EndpointSource::Discovered(issuer.check()?)
            }
        };
        Ok(Server {
            client,
            configured,
            endpoints,
        })
    }
}

impl Configured {
    fn endpoints(
        &self,
        client: &Arc<Client>,
        token_url: Url,
        issuer: Option<String>,
        auth: ClientAuth,
    ) -> Endpoints {
        let token = TokenEndpoint {
            url: token_url,
            issuer,
            auth,
            client: Arc::clone(client),
            kind: EndpointKind::Token,
        };
        let other = |url: &Option<Url>, kind| url.clone().map(|url| token.other(url, kind));
        let pushed = other(&self.pushed_request, EndpointKind::PushedRequest);
        Endpoints {
            authorization: self.authorization.clone(),
            revocation: other(&self.revocation, EndpointKind::Revocation),
            pushed: pushed.filter(|_| !self.never_push),
            requires_pushed_requests: false,
            issuer_is_sent: self.issuer_is_sent.unwrap_or(false),
            token,
        }
    }
}

impl Server {
    /// Returns the endpoints; fetches the metadata if they are not cached.
    pub(crate) async fn endpoints(&self) -> Result<Arc<Endpoints>, Error> {
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => Ok(Arc::clone(endpoints)),
            EndpointSource::Discovered(discovery) => {
                let metadata = discovery.metadata(&*self.client.http).await?;
                self.discovered(&metadata, discovery.audience())
                    .map(Arc::new)
            }
        }
    }

    fn discovered(&self, metadata: &Metadata, issuer: Option<&str>) -> Result<Endpoints, Error> {
        let auth = self.client.auth_for(metadata.auth_methods.as_deref())?;
        let over_mtls = auth.is_tls() || self.client.http.presents_certificate();
        let alias = |url: &Option<Url>| url.clone().filter(|_| over_mtls);
        let aliases = &metadata.mtls;
        let token_url = alias(&aliases.token).unwrap_or_else(|| metadata.token.clone());
        let configured =
            self.configured
                .endpoints(&self.client, token_url, issuer.map(str::to_owned), auth);
        let other = |url: Option<Url>, kind| url.map(|url| configured.token.other(url, kind));
        let revocation = alias(&aliases.revocation).or_else(|| metadata.revocation.clone());
        let pushed = alias(&aliases.pushed_request).or_else(|| metadata.pushed_request.clone());
        let discovered = other(pushed, EndpointKind::PushedRequest);
        Ok(Endpoints {
            requires_pushed_requests: metadata.requires_pushed_requests,
            pushed: configured
                .pushed
                .or(discovered)
                .filter(|_| !self.configured.never_push),
            authorization: configured
                .authorization
                .or_else(|| metadata.authorization.clone()),
            revocation: configured
                .revocation
                .or_else(|| other(revocation, EndpointKind::Revocation)),
            issuer_is_sent: self
                .configured
                .issuer_is_sent
                .unwrap_or(metadata.issuer_is_sent),
            token: configured.token,
        })
    }

    /// Returns the endpoints if that needs no request: configured, or with cached metadata.
    pub(crate) fn cached_endpoints(&self) -> Option<Arc<Endpoints>> {
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => Some(Arc::clone(endpoints)),
            EndpointSource::Discovered(discovery) => {
                let metadata = discovery.cached()?;
                let endpoints = self.discovered(&metadata, discovery.audience());
                endpoints.map(Arc::new).ok()
            }
        }
    }

    /// Returns the configured endpoints; `None` if they are discovered.
    pub(crate) fn configured(&self) -> Option<&Endpoints> {
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => Some(endpoints),
            EndpointSource::Discovered(_) => None,
        }
    }

    /// Checks the configured token endpoint's query: see [`Params::check_query`].
    pub(crate) fn check_token_query(
        &self,
        params: &Params,
        kind: RequestKind,
        own: impl Fn(&str) -> bool,
    ) -> Result<(), ConfigError> {
        match self.configured() {
            Some(endpoints) => params.check_query("token_url", &endpoints.token.url, kind, own),
            None => Ok(()),
        }
    }

    /// Returns what identifies this server: its issuer, or its token endpoint's URL.
    pub(crate) fn name(&self) -> &str {
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => endpoints.token.url.as_str(),
            EndpointSource::Discovered(discovery) => discovery.name(),
        }
    }

    /// Returns the issuer that `iss` of authorization responses is compared with.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => endpoints.token.issuer.as_deref(),
            EndpointSource::Discovered(discovery) => discovery.issuer(),
        }
    }

    /// Whether the configuration says that every authorization response has `iss`.
    pub(crate) fn is_known_to_send_issuer(&self) -> bool {
        self.issuer().is_some() && self.configured.issuer_is_sent == Some(true)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        match &self.endpoints {
            EndpointSource::Configured(endpoints) => shown.field("token", &endpoints.token),
            EndpointSource::Discovered(discovery) => shown
                .field("issuer", &discovery.name())
                .field("client_id", &self.client.id)
                .field("auth", &self.client.auth),
        };
        shown.finish_non_exhaustive()
    }
}

impl Server {
    /// Hashes the settings that distinguish its tokens from those of other servers and clients.
    #[cfg(feature = "redis")]
    pub(crate) fn digest(&self, kind: &str) -> Digest {
        let (label, place) = match &self.endpoints {
            EndpointSource::Configured(endpoints) => {
                ("token endpoint", endpoints.token.url.as_str())
            }
            EndpointSource::Discovered(discovery) => ("issuer", discovery.name()),
        };
        // One issuer may have several documents: Azure AD B2C has one for each policy.
        let metadata = match &self.endpoints {
            EndpointSource::Configured(_) => None,
            EndpointSource::Discovered(discovery) => discovery.metadata_url(),
        };
        // Its query may have parameters that change the token: an audience, a policy.
        let authorization = self
            .configured
            .authorization
            .as_ref()
            .map_or("", Url::as_str);
        let headers = self.client.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        Digest::new(kind)
            .with(label)
            .with(place)
            .with(metadata.unwrap_or_default())
            .with(authorization)
            // The scheme is shared with the token.
            .with(self.client.leniency.scheme.as_deref().unwrap_or_default())
            .with(&self.client.id)
            .with_pairs(headers)
    }
}

impl Client {
    /// Selects the authentication method. `supported` is from the metadata (RFC 8414 §2); `None`
    /// means Basic.
    fn auth_for(&self, supported: Option<&[String]>) -> Result<ClientAuth, Error> {
        let (false, false, Some(supported)) =
            (self.auth_is_configured, self.auth.is_none(), supported)
        else {
            return Ok(self.auth.clone());
        };
        let supports = |method: &str| supported.iter().any(|listed| listed == method);
        if supports("client_secret_basic") {
            return Ok(ClientAuth::basic());
        }
        // The other methods add parameters, which some clients send in the URL.
        let in_body = self.placement == Placement::Body;
        if in_body && supports("client_secret_post") {
            return Ok(ClientAuth::post());
        }
        #[cfg(feature = "jwt")]
        if in_body && supports("client_secret_jwt") {
            let auth = ClientAuth::client_secret_jwt();
            if auth.check(&self.id, &self.secret).is_ok() {
                return Ok(auth);
            }
        }
        let message = match self.secret.expose_secret().is_empty() {
            true => {
                "the server requires client authentication, and no client secret is configured: \
                     set `client_auth`"
            }
            false => {
                "the server supports no method that needs only the client secret: set the \
                      `client_auth` that the client is registered with"
            }
        };
        Err(Error::build(ErrorKind::Discovery, Retry::Never, message).done())
    }
}
