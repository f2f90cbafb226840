//! `ClientCredentialAuthorizer`. Its own client is reqwest's; the client here sends the same requests.

use std::sync::Arc;

use http::{Request, header::AUTHORIZATION};
use middle::{Authorizer, BasicClientCredentialAuthorizer};

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::Body,
};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("middle"),
        what: "`ClientCredentialAuthorizer`",
        start: start!(start),
        without: None,
        lifetime: seconds(33),
        run: seconds(8),
        less: "Not a layer: gives a header (its own client is reqwest's). Needs a token at \
               start-up. No 401 handling, no check of the token's destination. Refreshes in the \
               background, even when idle; when a token has expired, callers get an error at once, \
               and the next attempt may be 30 s away. Secrets are not wiped. Monotonic clock only",
    }]
}

#[derive(Clone)]
struct Header(BasicClientCredentialAuthorizer);

impl Asked for Header {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let header = self.0.authorization_header()?;
        request
            .headers_mut()
            .insert(AUTHORIZATION, Arc::unwrap_or_clone(header));
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let url = (endpoint.url() + "/token").parse()?;
    let authorizer =
        BasicClientCredentialAuthorizer::basic_builder("client-id", "client-secret", url)
            .build()
            .await?;
    Ok(Puts(Header(authorizer)))
}
