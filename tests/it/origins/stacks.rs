//! The combinations of a client, the layer, and a redirect policy.

use std::time::Duration;

use bearer_auth::BearerAuthLayer;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::origins::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// The layer over a `reqwest::Client`, with reqwest's own redirect policy.
    Reqwest,
    /// The same with `BearerAuthLayer::redirect_policy`.
    ReqwestWithPolicy,
    /// reqwest-middleware, with reqwest's own redirect policy.
    Middleware,
    /// The same with `BearerAuthLayer::redirect_policy`.
    MiddlewareWithPolicy,
    /// tower-http's `FollowRedirect` around the layer around hyper's client.
    FollowOutside,
    /// The layer around `FollowRedirect` around hyper's client.
    FollowBelow,
}

impl Stack {
    pub(crate) const ALL: &[Self] = &[
        Self::Reqwest,
        Self::ReqwestWithPolicy,
        Self::Middleware,
        Self::MiddlewareWithPolicy,
        Self::FollowOutside,
        Self::FollowBelow,
    ];

    /// Whether the layer's rules, including the base path, apply to each redirect.
    pub(crate) fn checks_redirects(self) -> bool {
        self.has_policy() || self == Self::FollowOutside
    }

    /// Whether redirects to other hosts are not followed.
    pub(crate) fn has_policy(self) -> bool {
        matches!(self, Self::ReqwestWithPolicy | Self::MiddlewareWithPolicy)
    }
}

/// The result of a request: a status, or the text of an error.
pub(crate) type Outcome = Result<u16, String>;

type Sender = BoxCloneSyncService<Request<Bytes>, u16, String>;

/// A stack, ready for requests.
#[derive(Clone)]
pub(crate) struct Rig(Sender);

impl Rig {
    pub(crate) fn new(stack: Stack, world: &World, auth: &BearerAuthLayer) -> Self {
        let policy = match stack.has_policy() {
            true => auth.redirect_policy(),
            false => reqwest::redirect::Policy::default(),
        };
        let reqwest = || world.reqwest().redirect(policy).build().unwrap();
        let follow = FollowRedirectLayer::new();
        Self(match stack {
            Stack::Reqwest | Stack::ReqwestWithPolicy => {
                let client = auth.layer(reqwest());
                let client = client.map_request(|request: Request<Bytes>| {
                    reqwest::Request::try_from(request).unwrap()
                });
                let client = client.map_response(|response| response.status().as_u16());
                BoxCloneSyncService::new(client.map_err(text))
            }
            Stack::Middleware | Stack::MiddlewareWithPolicy => {
                let client = reqwest_middleware::ClientBuilder::new(reqwest());
                let client = client.with(auth.clone()).build();
                let send = move |request: Request<Bytes>| {
                    let client = client.clone();
                    async move {
                        let request = reqwest::Request::try_from(request).unwrap();
                        let response = client.execute(request).await.map_err(text)?;
                        Ok(response.status().as_u16())
                    }
                };
                BoxCloneSyncService::new(tower::service_fn(send))
            }
            Stack::FollowOutside => boxed(follow.layer(auth.layer(world.hyper()))),
            Stack::FollowBelow => boxed(auth.layer(follow.layer(world.hyper()))),
        })
    }

    /// Any other tower stack.
    pub(crate) fn of<S, B>(service: S) -> Self
    where
        S: tower::Service<Request<Full<Bytes>>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Error: std::error::Error + 'static,
        S::Future: Send + 'static,
        B: 'static,
    {
        Self(boxed(service))
    }

    pub(crate) async fn get(&self, uri: &str) -> Outcome {
        let request = Request::get(uri).body(Bytes::new()).unwrap();
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Outcome {
        // An endless redirect loop is a failure.
        let answered = self.0.clone().oneshot(request);
        let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
        answered.unwrap_or_else(|_| Err("no response within 30 s".to_owned()))
    }
}

fn boxed<S, B>(service: S) -> Sender
where
    S: tower::Service<Request<Full<Bytes>>, Response = http::Response<B>>,
    S: Clone + Send + Sync + 'static,
    S::Error: std::error::Error + 'static,
    S::Future: Send + 'static,
    B: 'static,
{
    let service = service.map_request(|request: Request<Bytes>| request.map(Full::new));
    let service = service.map_response(|response: http::Response<B>| response.status().as_u16());
    BoxCloneSyncService::new(service.map_err(text))
}

/// The text of an error and its causes, which must not contain a token.
fn text(error: impl std::error::Error) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        shown += &format!(": {cause}");
        source = cause.source();
    }
    assert!(!shown.contains(crate::origins::world::CANARY), "{shown}");
    shown
}
