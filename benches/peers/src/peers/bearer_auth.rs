//! The crate itself.

use bearer_auth::{BearerAuthLayer, BearerAuthLayerBuilder, ClientCredentials, resend::Off};
use tower_layer::Layer as _;

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Peer, Tower},
    endpoint::Endpoint,
    stacks::{API, Noop},
};

pub(super) fn entries() -> Vec<Entry> {
    let entry = |what, start, less| Entry {
        package: Some("bearer-auth"),
        what,
        start,
        without: None,
        lifetime: seconds(4),
        run: seconds(8),
        less,
    };
    vec![
        entry("default: keeps a copy to resend", start!(resends), "–"),
        entry(
            "resending off",
            start!(sends_once),
            "No resending: the caller gets the 401, and the next request has a new token",
        ),
    ]
}

fn layer(endpoint: &Endpoint) -> Result<BearerAuthLayerBuilder, BoxError> {
    let source =
        ClientCredentials::builder(endpoint.url() + "/token", "client-id", "client-secret")
            .build()?;
    Ok(BearerAuthLayer::builder(source).api(API))
}

async fn resends(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    Ok(Tower(layer(&endpoint)?.build()?.layer(Noop)))
}

async fn sends_once(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    Ok(Tower(layer(&endpoint)?.resend(Off).build()?.layer(Noop)))
}
