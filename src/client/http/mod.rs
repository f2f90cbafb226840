//! HTTP clients for requests to the authorization server.

mod exchange;
mod http_client;
#[cfg(feature = "reqwest")]
mod reqwest_client;
mod tower_client;

pub(crate) use self::exchange::{MAX_WAIT, default_client, exchange, limited};
#[cfg(feature = "reqwest")]
pub use self::reqwest_client::ReqwestClient;
pub use self::{
    http_client::{HttpClient, HttpError, HttpFuture, MAX_BODY},
    tower_client::TowerClient,
};
