//! The OAuth client: who it is, how it authenticates, and how it talks to the authorization server.
//!
//! From bottom to top: `form`, `params` and `scope` (what a request says), `http` (what carries it),
//! `auth` (how the client authenticates), `endpoint` (a request to an endpoint, and its response),
//! `metadata` (where the endpoints are), `server` (one server, as one client sees it), `settings` (what
//! every builder of a client has).

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
    http::{HttpClient, HttpError, HttpFuture, MAX_BODY, TowerClient},
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
