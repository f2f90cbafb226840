//! The layer in tower stacks, over hyper-util's client on real sockets.

use std::{future::Ready, time::Duration};

use bearer_auth::{
    ErrorKind, ServiceError,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _, load_shed, retry::Policy};
use tower_layer::Layer as _;

use crate::support::http::*;

#[tokio::test]
async fn revoked_token_is_replaced_over_http1_and_http2() {
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

/// Sends a body, which is resent after a 401: the API must get the same bytes each time.
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
async fn bodies_in_memory_are_resent_verbatim() {
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    resent(Full::new(Bytes::from(every_byte))).await;
    resent(Full::new(&b"\0\r\n"[..])).await;
    resent(Full::<Bytes>::default()).await;
    resent(Empty::<Bytes>::new()).await;
    resent(String::from("ö")).await;
}

#[tokio::test]
async fn layer_works_inside_and_outside_common_tower_layers() {
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
async fn outer_timeout_ends_the_wait_but_not_the_token_request() {
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

/// Retries once after a token error.
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
async fn outer_retry_meets_the_backoff_of_the_token_error() {
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
    // The retry met the backoff of the first failure, without a token request.
    assert!(token_error.retry_after().is_some());
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn outer_load_shed_sheds_for_the_service_but_not_for_the_token() {
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

    // A busy service sheds.
    idp.api_answers("/api/silent", Answer::silence());
    let silent = tokio::spawn(client.clone().oneshot(get(api_url.clone() + "silent")));
    soon(idp.api_requests_reach(3)).await;
    let error = client.oneshot(get(&api_url)).await.unwrap_err();
    assert!(error.is::<load_shed::error::Overloaded>(), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn inner_load_shed_is_an_inner_error() {
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
async fn cause_of_a_boxed_error_is_reachable() {
    let idp = MockIdp::start().await.unwrap();
    let (url, _held) = closed_port();
    let auth = builder_for(&idp).api(&url).build().unwrap();
    auth.cache().token().await.unwrap();
    let client = ServiceBuilder::new()
        .layer(auth)
        .map_err(BoxError::from)
        .service(http1::<NoBody>());
    let error = client.oneshot(get(&url)).await.unwrap_err();
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
