//! `HttpAuthorizer` over `InMemoryTokenCache`, used as in its example `cached_client`.

use std::sync::Arc;

use http::{Request, Response, Uri};
use huskarl::{
    authorizer::HttpAuthorizer,
    cache::{GrantTokenSource, InMemoryRefreshTokenStore, InMemoryTokenCache},
    core::{
        EndpointUrl,
        client_auth::ClientSecret,
        secrets::{ProvidedSecret, SecretString},
    },
    grant::client_credentials::{ClientCredentialsGrant, ClientCredentialsGrantParameters},
};
use huskarl_reqwest::ReqwestClient;

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::{API, Body},
};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("huskarl"),
        what: "`HttpAuthorizer`",
        start: start!(start),
        without: None,
        // It refreshes ahead by a random part of a tenth of the lifetime. For much shorter tokens, that
        // may be less than the time of a token request.
        lifetime: seconds(16),
        run: seconds(18),
        less: "Not a layer: the caller sets the headers, reports each answer, and resends. An \
               `invalid_token` discards the cached token, even a newer one. One caller waits for \
               each refresh; dropping it drops the token request. In the last 30 s of a token (half \
               of a short one) a failed refresh fails requests. No check of the token's \
               destination. Wall clock only",
    }]
}

#[derive(Clone)]
struct Authorizer {
    authorizer: Arc<HttpAuthorizer>,
    uri: Uri,
}

impl Asked for Authorizer {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let headers = self
            .authorizer
            .get_headers(request.method(), &self.uri)
            .await?;
        request.headers_mut().extend(headers);
        Ok(())
    }

    fn answered(&self, response: &Response<()>) {
        self.authorizer
            .process_response(&self.uri, response.headers());
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let secret = ProvidedSecret::new(SecretString::new("client-secret"));
    let grant = ClientCredentialsGrant::builder()
        .client_id("client-id")
        .http_client(ReqwestClient::builder().build().await?)
        .client_auth(ClientSecret::new(secret))
        .token_endpoint(EndpointUrl::try_from(endpoint.url() + "/token")?)
        .build();
    let source = GrantTokenSource::builder()
        .grant(grant)
        .grant_parameters(ClientCredentialsGrantParameters::builder().build())
        .refresh_store(InMemoryRefreshTokenStore::default())
        .build();
    let cache = InMemoryTokenCache::builder().source(source).build();
    Ok(Puts(Authorizer {
        authorizer: Arc::new(HttpAuthorizer::builder().cache(cache).build()),
        uri: API.parse()?,
    }))
}
