//! The two tower layers of cf-gears-toolkit-auth.

use std::task::{Context, Poll};

use http::{Request, Response};
use toolkit_auth::oauth2::{
    BearerAuthAutoRefreshLayer, BearerAuthLayer, OAuthClientConfig, SecretString, TokenProvider,
};
use toolkit_http::{HttpClientConfig, HttpError};
use tower_layer::Layer as _;
use tower_service::Service;

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Answer, Peer, Tower},
    endpoint::Endpoint,
    stacks::Body,
};

pub(super) fn entries() -> Vec<Entry> {
    let entry = |what, start, less| Entry {
        package: Some("cf-gears-toolkit-auth"),
        what,
        start,
        without: None,
        lifetime: seconds(4),
        run: seconds(8),
        less,
    };
    vec![
        entry(
            "`BearerAuthLayer`",
            start!(plain),
            "No 401 handling. No check of the token's destination; replaces an `Authorization` \
               that the caller has set. Refreshes in the background as long as it exists, even when \
               idle. Monotonic clock only",
        ),
        entry(
            "`BearerAuthAutoRefreshLayer`",
            start!(auto_refresh),
            "Requests a new token after a 401 at most once in 15 min (configurable), for any \
               challenge, and discards the cached token, even a newer one; all callers wait for the \
               new one. Bodies must be `Clone`. No check of the token's destination. Refreshes in \
               the background, even when idle. Monotonic clock only",
        ),
    ]
}

/// `Noop`, with the error type that these layers require of the service below.
#[derive(Clone, Copy)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<()>;
    type Error = HttpError;
    type Future = Answer<HttpError>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Answer::to(request)
    }
}

fn tokens(endpoint: &Endpoint) -> Result<TokenProvider, BoxError> {
    Ok(TokenProvider::new(OAuthClientConfig {
        token_endpoint: Some((endpoint.url() + "/token").parse()?),
        client_id: "client-id".into(),
        client_secret: SecretString::new("client-secret"),
        // Plain http is for tests only.
        http_config: Some(HttpClientConfig::for_testing()),
        ..OAuthClientConfig::default()
    })?)
}

async fn plain(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    Ok(Tower(BearerAuthLayer::new(tokens(&endpoint)?).layer(Inner)))
}

async fn auto_refresh(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let layer = BearerAuthAutoRefreshLayer::new(tokens(&endpoint)?);
    Ok(Tower(layer.layer(Inner)))
}
