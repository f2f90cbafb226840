//! The layer in stacks of tower, over hyper-util's client on real sockets.

use std::{convert::Infallible, future::Ready, time::Duration};

use bearer_auth::{
    BearerAuthLayer, ErrorKind, ServiceError, StaticToken,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt as _, load_shed, retry::Policy, service_fn,
};
use tower_layer::Layer as _;

use crate::support::http::*;

#[tokio::test]
async fn over_http1_and_http2() {
    for (client, version) in [
        (http1::<NoBody>(), Version::HTTP_11),
        (http2(), Version::HTTP_2),
    ] {
        let idp = MockIdp::start().await.unwrap();
        let mut client = layer_for(&idp).layer(client);
        for _ in 0..3 {
            let request = get(idp.api_url() + "orders?open=1");
            let response = client.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        idp.revoke("token-1");
        let request = get(idp.api_url() + "orders");
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);

        assert_eq!(idp.token_requests(), 2);
        let log = idp.api_log();
        assert!(log.iter().all(|request| request.version == version));
        let tokens: Vec<_> = log.iter().map(|r| r.header("authorization")).collect();
        let [one, two] = [Some("Bearer token-1"), Some("Bearer token-2")];
        assert_eq!(tokens, [one, one, one, one, two]);
        assert_eq!(log[0].target, "/api/orders?open=1");
    }
}

/// A body that may be sent twice: what the API got after a 401, and what it was meant to get.
async fn resent<B>(body: B)
where
    B: http_body::Body + Clone + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError> + std::fmt::Debug,
{
    let sent = body.clone().collect().await.unwrap().to_bytes();
    let idp = MockIdp::start().await.unwrap();
    let client = layer_for(&idp).layer(http1::<B>());
    let url = idp.api_url() + "orders";
    let call = |body| client.clone().oneshot(post(&url, body));
    assert_eq!(call(body.clone()).await.unwrap().status(), 200);
    idp.revoke("token-1");
    assert_eq!(call(body).await.unwrap().status(), 200);
    let log = idp.api_log();
    assert_eq!(log.len(), 3);
    for request in &log {
        assert_eq!(request.method, "POST");
        assert_eq!(request.body, sent);
        assert_eq!(
            request.header("content-length"),
            log[0].header("content-length")
        );
        assert_eq!(request.header("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn bodies_in_memory_are_sent_again_byte_for_byte() {
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    resent(Full::new(Bytes::from(every_byte))).await;
    resent(Full::new(&b"\0\r\n"[..])).await;
    resent(Full::<Bytes>::default()).await;
    resent(Empty::<Bytes>::new()).await;
    resent(String::from("ö")).await;
}

type Answered = Ready<Result<Response<()>, Infallible>>;

#[tokio::test]
async fn over_a_bare_function_and_any_body() {
    struct Opaque;

    fn echo<B>(request: Request<B>) -> Answered {
        let header = request.headers()["authorization"].clone();
        let response = Response::builder().header("x-seen", header);
        std::future::ready(Ok(response.body(()).unwrap()))
    }

    let auth = BearerAuthLayer::builder(StaticToken::new("t"))
        .any_api()
        .build()
        .unwrap();
    let seen = |response: Response<()>| response.headers()["x-seen"].clone();
    let uri = "https://h/x";
    let unit = auth.layer(service_fn(echo)).oneshot(post(uri, ())).await;
    assert_eq!(seen(unit.unwrap()), "Bearer t");
    let opaque = auth.layer(service_fn(echo));
    let opaque = opaque.oneshot(post(uri, Opaque)).await;
    assert_eq!(seen(opaque.unwrap()), "Bearer t");
    let bytes = auth.layer(service_fn(echo));
    let bytes = bytes.oneshot(post(uri, vec![1u8])).await;
    assert_eq!(seen(bytes.unwrap()), "Bearer t");
}

#[tokio::test]
async fn inside_and_outside_of_every_common_layer() {
    let idp = MockIdp::start().await.unwrap();
    let auth = layer_for(&idp);
    let minute = Duration::from_secs(60);

    let inside = ServiceBuilder::new()
        .load_shed()
        .buffer(8)
        .timeout(minute)
        .concurrency_limit(1)
        .layer(auth.clone())
        .service(http1::<Full<Bytes>>());
    let outside = ServiceBuilder::new()
        .layer(auth.clone())
        .load_shed()
        .buffer(8)
        .timeout(minute)
        .concurrency_limit(1)
        .service(http1::<Full<Bytes>>());
    let twice = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(1)
        .layer(auth)
        .timeout(minute)
        .concurrency_limit(1)
        .buffer(8)
        .service(http1::<Full<Bytes>>());

    let url = idp.api_url() + "orders";
    let request = || post(&url, Full::from("body"));
    for round in 1..=3 {
        let inside = inside.clone().oneshot(request()).await.unwrap();
        assert_eq!(inside.status(), 200);
        let outside = outside.clone().oneshot(request()).await.unwrap();
        assert_eq!(outside.status(), 200);
        let twice = twice.clone().oneshot(request()).await.unwrap();
        assert_eq!(twice.status(), 200);
        assert_eq!(idp.tokens_issued(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_timeout_outside_ends_the_wait_and_not_the_token_request() {
    let idp = MockIdp::start().await.unwrap();
    let auth = layer_for(&idp);
    let client = ServiceBuilder::new()
        .timeout(Duration::from_millis(1))
        .layer(auth.clone())
        .service(http1::<NoBody>());
    let hold = idp.hold();
    let error = client.oneshot(get(idp.api_url())).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error:?}");
    soon(idp.token_requests_reach(1)).await;
    hold.release();
    let token = soon(auth.cache().token()).await.unwrap();
    assert_eq!(token.expose_secret(), "token-1");
    assert_eq!(idp.token_requests(), 1);
    assert_eq!(idp.api_requests(), 0);
}

/// Tries again, once, when there was no token.
#[derive(Clone)]
struct OnceMore(bool);

impl<R, E> Policy<Request<NoBody>, Response<R>, ServiceError<E>> for OnceMore {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut Request<NoBody>,
        result: &mut Result<Response<R>, ServiceError<E>>,
    ) -> Option<Self::Future> {
        let no_token = matches!(result, Err(error) if error.token_error().is_some());
        (no_token && std::mem::take(&mut self.0)).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<NoBody>) -> Option<Request<NoBody>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_retry_outside_sees_token_errors_and_its_requests_get_the_token_anew() {
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::oauth_error("invalid_client"));
    let auth = layer_for(&idp);
    let client = ServiceBuilder::new()
        .retry(OnceMore(true))
        .layer(auth)
        .service(http1());
    let error = client.oneshot(get(idp.api_url())).await.unwrap_err();
    let token_error = error.token_error().unwrap();
    assert_eq!(token_error.kind(), ErrorKind::OAuth);
    // The second try met the backoff of the first: no storm, however often anybody retries.
    assert!(token_error.retry_after().is_some());
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn load_shed_outside_sheds_for_the_service_and_not_for_the_token() {
    let idp = MockIdp::start().await.unwrap();
    let api_url = idp.api_url();
    let client = ServiceBuilder::new()
        .load_shed()
        .layer(layer_for(&idp))
        .concurrency_limit(1)
        .service(http1::<NoBody>());
    let hold = idp.hold();
    let first = tokio::spawn(client.clone().oneshot(get(&api_url)));
    soon(idp.token_requests_reach(1)).await;
    let second = tokio::spawn(client.clone().oneshot(get(&api_url)));
    settle().await;
    assert!(!first.is_finished() && !second.is_finished(), "both wait");
    hold.release();
    assert_eq!(soon(first).await.unwrap().unwrap().status(), 200);
    assert_eq!(soon(second).await.unwrap().unwrap().status(), 200);

    // And a service that is busy sheds.
    idp.api_answers("/api/silent", Answer::silence());
    let silent = tokio::spawn(client.clone().oneshot(get(api_url.clone() + "silent")));
    soon(idp.api_requests_reach(3)).await;
    let error = client.oneshot(get(&api_url)).await.unwrap_err();
    assert!(error.is::<load_shed::error::Overloaded>(), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn load_shed_inside_is_an_inner_error() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/silent", Answer::silence());
    let client = ServiceBuilder::new()
        .layer(layer_for(&idp))
        .load_shed()
        .concurrency_limit(1)
        .service(http1::<NoBody>());
    let silent = tokio::spawn(client.clone().oneshot(get(idp.api_url() + "silent")));
    soon(idp.api_requests_reach(1)).await;
    match client.oneshot(get(idp.api_url())).await.unwrap_err() {
        ServiceError::Inner(error) => assert!(error.is::<load_shed::error::Overloaded>()),
        other => panic!("{other:?}"),
    }
    silent.abort();
}

#[tokio::test]
async fn the_cause_of_a_boxed_error_is_reached() {
    let idp = MockIdp::start().await.unwrap();
    let (nobody, _held) = nobody();
    let auth = builder_for(&idp).api(&nobody).build().unwrap();
    auth.cache().token().await.unwrap();
    let client = ServiceBuilder::new()
        .layer(auth)
        .map_err(BoxError::from)
        .service(http1::<NoBody>());
    let error = client.oneshot(get(&nobody)).await.unwrap_err();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let refused = std::iter::from_fn(|| {
        let here = cause?;
        cause = here.source();
        Some(here)
    })
    .find_map(|error| error.downcast_ref::<std::io::Error>());
    let refused = refused.map(std::io::Error::kind);
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
}
