//! `TokenWatcher`: gives the latest token, which the caller puts on requests.

use aliri::jwt::Audience;
use aliri_tokens::{
    ClientId, ClientSecret, TokenLifetimeConfig, TokenWatcher, backoff::ErrorBackoffConfig,
    jitter::NullJitter, sources::oauth2,
};
use http::{HeaderValue, Request, header::AUTHORIZATION};

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::Body,
};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("aliri_tokens"),
        what: "`TokenWatcher`",
        start: start!(start),
        without: None,
        lifetime: seconds(4),
        run: seconds(8),
        less: "Not a layer: gives the latest token, from which the caller makes a header. Needs one \
               at start-up, and also returns an expired one (the caller can check its status). No \
               401 handling, no check of the token's destination. Refreshes in the background, even \
               when idle. Secrets are not wiped. Wall clock only",
    }]
}

#[derive(Clone)]
struct Watcher(TokenWatcher);

impl Asked for Watcher {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let header = format!("Bearer {}", self.0.token().access_token().as_str());
        let mut value = HeaderValue::try_from(header)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let credentials = oauth2::dto::ClientCredentialsWithAudience {
        credentials: oauth2::dto::ClientCredentials {
            client_id: ClientId::from_static("client-id"),
            client_secret: ClientSecret::from_static("client-secret"),
        }
        .into(),
        audience: Audience::from_static("test"),
    };
    // Three quarters of the lifetime is its default. Its shortest time to a refresh, 30 s, is too long
    // for the tokens here.
    let lifetimes = TokenLifetimeConfig::new(0.75, seconds(1).into());
    let source = oauth2::ClientCredentialsTokenSource::new(
        reqwest_for_aliri::Client::new(),
        (endpoint.url() + "/token").parse()?,
        credentials,
        lifetimes,
    );
    let backoff = ErrorBackoffConfig::default();
    let watcher = TokenWatcher::spawn_from_token_source(source, NullJitter, backoff).await?;
    Ok(Puts(Watcher(watcher)))
}
