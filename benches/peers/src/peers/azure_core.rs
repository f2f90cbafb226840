//! `BearerTokenAuthorizationPolicy`, in a pipeline of its own kind of requests.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use azure_core::{
    Bytes,
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    http::{
        AsyncRawResponse, Context, Method, Request, StatusCode, Url,
        headers::{HeaderName, HeaderValue, Headers},
        policies::{Policy, PolicyResult, auth::BearerTokenAuthorizationPolicy},
    },
};

use super::{Entry, seconds, start};
use crate::{BoxError, driving::Peer, endpoint::Endpoint, stacks};

const HEADERS: usize = 4;

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("azure_core"),
        what: "`BearerTokenAuthorizationPolicy`",
        start: start!(start),
        without: Some(start!(without)),
        lifetime: seconds(302),
        run: seconds(6),
        less: "For Azure, and requests of its own kind. From 5 min before expiry all callers wait \
               for the refresh; while it fails, all callers try, one after the other. Dropping the \
               caller that sends the token request drops the request. A 401 discards the cached \
               token, even a newer one, and the request is resent only with an `OnChallenge` of the \
               user. Checks the scheme of the URL, not the host. Secrets are not wiped. Wall clock \
               only",
    }]
}

#[derive(Debug)]
struct Credential(Endpoint);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.token().await;
        let expires = SystemTime::now() + self.0.lifetime();
        Ok(AccessToken::new(token, expires.into()))
    }
}

/// The policy that sends the request in its pipeline.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Policy for Nothing {
    async fn send(
        &self,
        _context: &Context,
        request: &mut Request,
        _next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        std::hint::black_box(request);
        Ok(AsyncRawResponse::from_bytes(
            StatusCode::Ok,
            Headers::new(),
            Bytes::new(),
        ))
    }
}

#[derive(Clone)]
struct Pipeline {
    policies: Arc<[Arc<dyn Policy>]>,
    url: Url,
}

impl Pipeline {
    fn of(policies: Vec<Arc<dyn Policy>>) -> Result<Self, BoxError> {
        let request = stacks::request(HEADERS);
        Ok(Self {
            policies: policies.into(),
            url: request.uri().to_string().parse()?,
        })
    }
}

impl Peer for Pipeline {
    type Request = Request;

    fn request(&self) -> Request {
        let mut request = Request::new(self.url.clone(), Method::Get);
        for (name, value) in stacks::request(HEADERS).headers() {
            let name = HeaderName::from(name.as_str().to_owned());
            let value = value.to_str().expect("written in this program").to_owned();
            request.insert_header(name, HeaderValue::from(value));
        }
        request
    }

    async fn send(&mut self, mut request: Request) -> Result<(), BoxError> {
        let context = Context::new();
        let (first, rest) = self.policies.split_first().expect("there is `Nothing`");
        drop(first.send(&context, &mut request, rest).await?);
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let credential = Arc::new(Credential(endpoint));
    let policy = BearerTokenAuthorizationPolicy::new(credential, ["test"]);
    Pipeline::of(vec![Arc::new(policy), Arc::new(Nothing)])
}

async fn without(_: Endpoint) -> Result<impl Peer, BoxError> {
    Pipeline::of(vec![Arc::new(Nothing)])
}
