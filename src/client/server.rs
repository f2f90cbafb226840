//! The authorization server as one client sees it: where its endpoints are, and how the client
//! proves itself there.
//!
//! The caller tells, or names an [`Issuer`], whose metadata (RFC 8414) tell. Invariants: what the
//! caller says counts, whatever the server says of itself; nothing is asked before there is
//! something to ask for, so that building does no I/O; a document that is not the issuer's own is
//! as good as none.

use std::{fmt, sync::Arc};

use secrecy::ExposeSecret;
use url::Url;

use super::{
    auth::ClientAuth,
    endpoint::{Client, Kind, TokenEndpoint},
    metadata::{Discovery, Issuer, Metadata},
    params::{Params, Placement, RequestKind},
};
#[cfg(feature = "redis")]
use crate::token::Digest;
use crate::{
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url,
};

/// What a caller says of a server, not checked yet.
pub(crate) struct ServerSettings {
    pub(crate) place: Place,
    pub(crate) authorization_url: Option<Result<String, ConfigError>>,
    pub(crate) revocation_url: Option<String>,
    pub(crate) pushed_request_url: Option<String>,
    /// Parameters of logins travel with the browser, even if the server would take them beforehand.
    pub(crate) never_push: bool,
    pub(crate) issuer: Option<String>,
    /// Whether answers to logins always say whose they are; `None`: the metadata say so.
    pub(crate) issuer_is_sent: Option<bool>,
}

pub(crate) enum Place {
    /// The token endpoint's URL.
    At(Result<String, ConfigError>),
    Of(Issuer),
}

/// A server, and a client of it.
pub(crate) struct Server {
    pub(crate) client: Arc<Client>,
    configured: Configured,
    found: Found,
}

/// What a caller says, whatever the server says.
struct Configured {
    authorization: Option<Url>,
    revocation: Option<Url>,
    pushed_request: Option<Url>,
    never_push: bool,
    issuer_is_sent: Option<bool>,
}

enum Found {
    Configured(Arc<Endpoints>),
    Discovered(Discovery),
}

/// Where a client asks for what.
pub(crate) struct Endpoints {
    pub(crate) token: TokenEndpoint,
    pub(crate) authorization: Option<Url>,
    pub(crate) revocation: Option<TokenEndpoint>,
    /// Where the parameters of a login go first (RFC 9126).
    pub(crate) pushed: Option<TokenEndpoint>,
    /// They have to (RFC 9126 §5).
    pub(crate) pushes_only: bool,
    /// Every answer to a login says whose it is (RFC 9207 §3).
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
        let found = match self.place {
            Place::At(url) => {
                let url = secure_url::parse("token_url", &url?)?;
                secure_url::uri("token_url", &url)?;
                let auth = client.auth.clone();
                Found::Configured(Arc::new(configured.endpoints(
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
                    let problem = "another than the one whose metadata are asked for";
                    return Err(ConfigError::new("issuer", problem));
                }
                Found::Discovered(issuer.check()?)
            }
        };
        Ok(Server {
            client,
            configured,
            found,
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
            kind: Kind::Token,
        };
        let beside = |url: &Option<Url>, kind| url.clone().map(|url| token.beside(url, kind));
        let pushed = beside(&self.pushed_request, Kind::PushedRequest);
        Endpoints {
            authorization: self.authorization.clone(),
            revocation: beside(&self.revocation, Kind::Revocation),
            pushed: pushed.filter(|_| !self.never_push),
            pushes_only: false,
            issuer_is_sent: self.issuer_is_sent.unwrap_or(false),
            token,
        }
    }
}

impl Server {
    /// Asks for the metadata if they are to be asked for.
    pub(crate) async fn endpoints(&self) -> Result<Arc<Endpoints>, Error> {
        match &self.found {
            Found::Configured(endpoints) => Ok(Arc::clone(endpoints)),
            Found::Discovered(discovery) => {
                let metadata = discovery.metadata(&*self.client.http).await?;
                self.discovered(&metadata, discovery.audience())
                    .map(Arc::new)
            }
        }
    }

    fn discovered(&self, metadata: &Metadata, issuer: Option<&str>) -> Result<Endpoints, Error> {
        let auth = self.client.auth_at(metadata.auth_methods.as_deref())?;
        let over_mtls = auth.is_tls() || self.client.http.presents_certificate();
        let alias = |url: &Option<Url>| url.clone().filter(|_| over_mtls);
        let aliases = &metadata.mtls;
        let token_url = alias(&aliases.token).unwrap_or_else(|| metadata.token.clone());
        let configured =
            self.configured
                .endpoints(&self.client, token_url, issuer.map(str::to_owned), auth);
        let beside = |url: Option<Url>, kind| url.map(|url| configured.token.beside(url, kind));
        let revocation = alias(&aliases.revocation).or_else(|| metadata.revocation.clone());
        let pushed = alias(&aliases.pushed_request).or_else(|| metadata.pushed_request.clone());
        let offered = beside(pushed, Kind::PushedRequest);
        Ok(Endpoints {
            pushes_only: metadata.demands_pushed_requests,
            pushed: configured
                .pushed
                .or(offered)
                .filter(|_| !self.configured.never_push),
            authorization: configured
                .authorization
                .or_else(|| metadata.authorization.clone()),
            revocation: configured
                .revocation
                .or_else(|| beside(revocation, Kind::Revocation)),
            issuer_is_sent: self
                .configured
                .issuer_is_sent
                .unwrap_or(metadata.issuer_is_sent),
            token: configured.token,
        })
    }

    /// As [`endpoints`](Self::endpoints), if they are known and nothing is to be asked for.
    pub(crate) fn endpoints_at_hand(&self) -> Option<Arc<Endpoints>> {
        match &self.found {
            Found::Configured(endpoints) => Some(Arc::clone(endpoints)),
            Found::Discovered(discovery) => {
                let metadata = discovery.at_hand()?;
                let found = self.discovered(&metadata, discovery.audience());
                found.map(Arc::new).ok()
            }
        }
    }

    /// What is known before anything is asked.
    pub(crate) fn configured(&self) -> Option<&Endpoints> {
        match &self.found {
            Found::Configured(endpoints) => Some(endpoints),
            Found::Discovered(_) => None,
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

    /// What tells this server from others: its issuer, or its token endpoint's URL.
    pub(crate) fn name(&self) -> &str {
        match &self.found {
            Found::Configured(endpoints) => endpoints.token.url.as_str(),
            Found::Discovered(discovery) => discovery.name(),
        }
    }

    /// Its issuer, as far as answers are compared with it.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match &self.found {
            Found::Configured(endpoints) => endpoints.token.issuer.as_deref(),
            Found::Discovered(discovery) => discovery.issuer(),
        }
    }

    /// Whether answers to logins are known to say whose they are, before anything is asked.
    pub(crate) fn is_known_to_send_issuer(&self) -> bool {
        self.issuer().is_some() && self.configured.issuer_is_sent == Some(true)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        match &self.found {
            Found::Configured(endpoints) => shown.field("token", &endpoints.token),
            Found::Discovered(discovery) => shown
                .field("issuer", &discovery.name())
                .field("client_id", &self.client.id)
                .field("auth", &self.client.auth),
        };
        shown.finish_non_exhaustive()
    }
}

impl Server {
    /// What makes its tokens differ from those of other servers and clients.
    #[cfg(feature = "redis")]
    pub(crate) fn digest(&self, kind: &str) -> Digest {
        let (what, place) = match &self.found {
            Found::Configured(endpoints) => ("token endpoint", endpoints.token.url.as_str()),
            Found::Discovered(discovery) => ("issuer", discovery.name()),
        };
        // One issuer may have several, as Azure AD B2C has one for each policy.
        let metadata = match &self.found {
            Found::Configured(_) => None,
            Found::Discovered(discovery) => discovery.metadata_url(),
        };
        // It may have parameters: an audience, a policy.
        let authorization = self
            .configured
            .authorization
            .as_ref()
            .map_or("", Url::as_str);
        let headers = self.client.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        Digest::new(kind)
            .with(what)
            .with(place)
            .with(metadata.unwrap_or_default())
            .with(authorization)
            // Shared with the token.
            .with(self.client.leniency.scheme.as_deref().unwrap_or_default())
            .with(&self.client.id)
            .with_pairs(headers)
    }
}

impl Client {
    /// How the client proves itself to a server that takes these methods (RFC 8414 §2); `None`: it
    /// does not say, which means Basic.
    fn auth_at(&self, taken: Option<&[String]>) -> Result<ClientAuth, Error> {
        let (false, false, Some(taken)) = (self.auth_is_configured, self.auth.is_none(), taken)
        else {
            return Ok(self.auth.clone());
        };
        let takes = |method: &str| taken.iter().any(|taken| taken == method);
        if takes("client_secret_basic") {
            return Ok(ClientAuth::basic());
        }
        // Everything else is a parameter, and some clients put those into the URL.
        let in_body = self.placement == Placement::Body;
        if in_body && takes("client_secret_post") {
            return Ok(ClientAuth::post());
        }
        #[cfg(feature = "jwt")]
        if in_body && takes("client_secret_jwt") {
            let auth = ClientAuth::client_secret_jwt();
            if auth.check(&self.id, &self.secret).is_ok() {
                return Ok(auth);
            }
        }
        let message = match self.secret.expose_secret().is_empty() {
            true => {
                "the server wants clients to prove themselves, and there is no secret: \
                     give `client_auth`"
            }
            false => {
                "the server takes no client's secret by itself: give the `client_auth` \
                      that it was registered with"
            }
        };
        Err(Error::build(ErrorKind::Discovery, Retry::Never, message).done())
    }
}
