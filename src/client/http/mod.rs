//! HTTP clients for requests to the authorization server.

mod exchange;
mod http_client;
#[cfg(feature = "reqwest")]
mod reqwest_client;
mod tower_client;

#[cfg(feature = "reqwest")]
pub use self::reqwest_client::ReqwestClient;
pub(crate) use self::{
    exchange::{MAX_WAIT, default_client, exchange, limited},
    http_client::DynHttpClient,
};
pub use self::{
    http_client::{HttpClient, HttpError, MAX_BODY},
    tower_client::TowerClient,
};
