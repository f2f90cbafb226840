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
            "No 401 handling. No check of where the token goes; an `Authorization` that the \
               caller has set is replaced. Renews in the background as long as it exists, called or \
               not. Monotonic clock only",
        ),
        entry(
            "`BearerAuthAutoRefreshLayer`",
            start!(auto_refresh),
            "Asks for a new token after a 401 at most once in 15 min (configurable), whatever the \
               challenge says, and discards whatever token is cached by then, a newer one too; \
               everybody waits for the new one. Bodies have to be `Clone`. No check of where the \
               token goes. Renews in the background, called or not. Monotonic clock only",
        ),
    ]
}

/// `Noop`, with the error that these layers want of the service below.
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
        // Plain http is for tests alone.
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
