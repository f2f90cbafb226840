//! `reqwest::Client` as the service of the layer, on real sockets.

use bearer_auth::{
    BearerAuthLayer, ErrorKind, ServiceError,
    resend::{Buffered, Off},
    testing::{Answer, MockIdp},
};
use futures_util::stream;
use reqwest::{Body, Method, Request, StatusCode};
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_layer::Layer as _;

use crate::support::{
    self,
    http::{builder_for, layer_for, soon},
};

fn request(method: Method, url: impl AsRef<str>) -> Request {
    Request::new(method, url.as_ref().parse().unwrap())
}

fn get(url: impl AsRef<str>) -> Request {
    request(Method::GET, url)
}

fn post(url: impl AsRef<str>, body: impl Into<Body>) -> Request {
    let mut request = request(Method::POST, url);
    *request.body_mut() = Some(body.into());
    request
}

fn streaming(chunks: &'static [&'static str]) -> Body {
    Body::wrap_stream(stream::iter(
        chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk)),
    ))
}

#[tokio::test]
async fn token_is_attached_and_replaced_after_a_401() {
    let idp = MockIdp::start().await.unwrap();
    let mut client = layer_for(&idp).layer(support::http::reqwest());
    let url = idp.api_url() + "orders";
    for request in [get(&url), post(&url, "body")] {
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    idp.revoke("token-1");
    let mut request = post(&url, "body");
    request.headers_mut().insert("x-one", "1".parse().unwrap());
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    assert!(text.contains(r#""body":"body""#), "{text}");

    let log = idp.api_log();
    assert_eq!(log.len(), 4);
    assert_eq!(log[2].header("authorization"), Some("Bearer token-1"));
    assert_eq!(log[3].header("authorization"), Some("Bearer token-2"));
    assert_eq!(
        (&log[2].body, log[2].header("x-one")),
        (&log[3].body, Some("1"))
    );
    assert_eq!(log[3].header("x-one"), Some("1"));
    assert_eq!(idp.token_requests(), 2);
}

#[tokio::test]
async fn streaming_body_is_sent_once() {
    let idp = MockIdp::start().await.unwrap();
    let client = layer_for(&idp).layer(support::http::reqwest());
    let url = idp.api_url() + "orders";
    let call = || client.clone().oneshot(post(&url, streaming(&["ab", "cd"])));
    assert_eq!(call().await.unwrap().status(), 200);
    idp.revoke("token-1");
    assert_eq!(call().await.unwrap().status(), 401);
    assert_eq!(call().await.unwrap().status(), 200);
    assert_eq!((idp.api_requests(), idp.token_requests()), (3, 2));
    assert!(idp.api_log().iter().all(|request| request.body == "abcd"));
}

#[tokio::test]
async fn resend_policies_off_and_buffered_work_with_reqwest() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.api_url() + "orders";
    let auth = builder_for(&idp).resend(Off).build().unwrap();
    auth.cache().token().await.unwrap();

    let off = auth.layer(support::http::reqwest());
    idp.revoke_all();
    assert_eq!(off.oneshot(get(&url)).await.unwrap().status(), 401);
    soon(idp.token_requests_reach(2)).await;
    // Wait for the flight that the 401 started.
    while idp.tokens_issued() < 2 {
        tokio::task::yield_now().await;
    }

    let idp = MockIdp::start().await.unwrap();
    let url = idp.api_url() + "orders";
    let auth = builder_for(&idp)
        .resend(Buffered::new(4, Body::from))
        .build()
        .unwrap();
    auth.cache().token().await.unwrap();
    idp.revoke_all();
    let client = auth.layer(support::http::reqwest());
    let short = client.clone().oneshot(post(&url, streaming(&["ab", "cd"])));
    assert_eq!(short.await.unwrap().status(), 200);
    assert_eq!(idp.api_requests(), 2);
    assert!(idp.api_log().iter().all(|request| request.body == "abcd"));

    let long = client
        .clone()
        .oneshot(post(&url, streaming(&["ab", "cde"])));
    let error = long.await.unwrap_err();
    assert_eq!(error.token_error().unwrap().kind(), ErrorKind::RequestBody);
    let mut declared = post(&url, streaming(&["ab", "cde"]));
    declared.headers_mut().insert("content-length", 5.into());
    assert_eq!(
        client.clone().oneshot(declared).await.unwrap().status(),
        200
    );
    let in_memory = client.oneshot(post(&url, "longer, but there"));
    assert_eq!(in_memory.await.unwrap().status(), 200);
    assert_eq!(idp.api_requests(), 4);
}

#[tokio::test]
async fn layer_over_reqwest_works_in_a_stack_and_spawned() {
    let idp = MockIdp::start().await.unwrap();
    let client = ServiceBuilder::new()
        .buffer(4)
        .layer(
            builder_for(&idp)
                .resend(Buffered::new(100, Body::from))
                .build()
                .unwrap(),
        )
        .concurrency_limit(1)
        .service(support::http::reqwest());
    let calls: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(
                client
                    .clone()
                    .oneshot(post(idp.api_url(), streaming(&["x"]))),
            )
        })
        .collect();
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn inner_and_token_errors_are_distinct_and_show_no_query() {
    let idp = MockIdp::start().await.unwrap();
    let auth = layer_for(&idp);
    auth.cache().token().await.unwrap();
    idp.api_answers("/api/gone", Answer::drop_connection());
    let url = idp.api_url() + "gone?secret=canary";
    let error = auth
        .layer(support::http::reqwest())
        .oneshot(get(url))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ServiceError::Inner(error) if error.is_request()),
        "{error:?}"
    );
    let boxed: bearer_auth::BoxError = error.into();
    assert!(boxed.source().unwrap().is::<reqwest::Error>());

    let any = BearerAuthLayer::builder(auth.cache().clone())
        .any_api()
        .build()
        .unwrap();
    let refused = any
        .layer(support::http::reqwest())
        .oneshot(get("http://192.0.2.1/?q=canary"));
    let error = refused.await.unwrap_err();
    assert_eq!(error.token_error().unwrap().kind(), ErrorKind::Target);
    assert!(!format!("{error} {error:?}").contains("canary"));
}
