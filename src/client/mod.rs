//! The OAuth client: who it is, how it authenticates, and how it talks to the server.

pub(crate) mod auth;
pub(crate) mod endpoint;
pub(crate) mod form;
pub(crate) mod http;
pub(crate) mod metadata;
pub(crate) mod server;
pub(crate) mod settings;

#[cfg(feature = "jwt")]
pub use self::auth::{SigningAlgorithm, SigningKey};
#[cfg(feature = "jwt")]
pub(crate) use self::endpoint::unbuildable;
pub use self::{auth::ClientAuth, metadata::Issuer};
pub(crate) use self::{
    endpoint::{Client, Parameters, TokenEndpoint},
    form::Form,
    http::HttpClient,
    server::{Endpoints, Place, Server},
    settings::{ClientSettings, check_params, check_query, check_scopes, scopes},
};
