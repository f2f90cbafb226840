//! The OAuth client: its identity, its authentication, and its requests to the authorization server.
//!
//! From bottom to top: `form`, `params` and `scope` (the content of a request), `http` (the HTTP
//! clients), `auth` (client authentication), `endpoint` (a request to an endpoint, and its response),
//! `metadata` (discovery), `server` (one server, for one client), `settings` (the settings that every
//! builder of a client has).

pub(crate) mod auth;
pub(crate) mod endpoint;
mod form;
mod http;
pub(crate) mod metadata;
mod params;
mod scope;
mod server;
mod settings;

#[cfg(feature = "jwt")]
pub use self::auth::{SigningAlgorithm, SigningKey};
#[cfg(feature = "jwt")]
pub(crate) use self::endpoint::unbuildable;
#[cfg(feature = "reqwest")]
pub use self::http::ReqwestClient;
pub use self::{
    auth::ClientAuth,
    http::{HttpClient, HttpError, MAX_BODY, TowerClient},
    metadata::Issuer,
};
pub(crate) use self::{
    endpoint::{Client, TokenEndpoint},
    form::Form,
    params::{Params, Placement, RequestKind},
    scope::{check_scopes, scopes},
    server::{Endpoints, Place, Server},
    settings::{ClientSettings, client_setters},
};
