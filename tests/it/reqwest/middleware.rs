//! The layer as a middleware of reqwest-middleware, on real sockets.

use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, Error, ErrorKind, TokenCache, TokenResponse,
    resend::{Buffered, Off, Replay},
    source_fn,
    testing::{Answer, ManualClock, MockIdp},
};
use futures_util::stream;
use reqwest::{Body, Request};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware};

use crate::support::{
    self,
    http::{builder_for, layer_for, settle, soon},
};

fn client<P>(auth: BearerAuthLayer<P>) -> ClientWithMiddleware
where
    P: Replay<Request>,
    BearerAuthLayer<P>: Middleware,
{
    ClientBuilder::new(support::http::reqwest())
        .with(auth)
        .build()
}

fn streaming(chunks: &'static [&'static str]) -> Body {
    Body::wrap_stream(stream::iter(
        chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk)),
    ))
}

/// This crate's error inside a middleware error.
fn ours(error: &reqwest_middleware::Error) -> &Error {
    match error {
        reqwest_middleware::Error::Middleware(error) => error.downcast_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn token_is_attached_and_replaced_after_a_401() {
    let idp = MockIdp::start().await.unwrap();
    let client = client(layer_for(&idp));
    let url = idp.api_url() + "orders";
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    idp.revoke("token-1");
    let response = client.post(&url).body("body").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.unwrap().contains(r#""body":"body""#));
    let own = client.get(&url).bearer_auth("own").send().await.unwrap();
    assert_eq!(own.status(), 401);
    let log = idp.api_log();
    let tokens: Vec<_> = log
        .iter()
        .filter_map(|r| r.header("authorization"))
        .collect();
    assert_eq!(
        tokens,
        [
            "Bearer token-1",
            "Bearer token-1",
            "Bearer token-2",
            "Bearer own"
        ]
    );
    assert_eq!(idp.token_requests(), 2);
}

#[tokio::test]
async fn c13_second_401_is_returned_with_its_body() {
    let idp = MockIdp::start().await.unwrap();
    let unauthorized = Answer::bytes(401, "text/plain", "x".repeat(100_000));
    idp.api_answers("/api/never", unauthorized);
    let client = client(layer_for(&idp));
    let response = client.get(idp.api_url() + "never").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.text().await.unwrap().len(), 100_000);
    assert_eq!(idp.api_requests(), 2);
}

/// The token has expired on arrival, as if the clock of this machine were ahead.
#[tokio::test]
async fn same_token_after_a_401_is_not_sent_again() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/never", Answer::status(401));
    let source = source_fn(|_| async {
        let same = TokenResponse::builder("same");
        same.expires_in(Duration::ZERO).build()
    });
    let cache = TokenCache::builder(source)
        .clock(ManualClock::new().auto_advance())
        .build();
    let auth = BearerAuthLayer::for_api(idp.api_url(), cache).unwrap();
    let client = client(auth);
    for requests in 1..=3 {
        let response = client.get(idp.api_url() + "never").send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(idp.api_requests(), requests);
    }
}

#[tokio::test]
async fn failed_token_request_returns_the_401_with_its_body() {
    let idp = MockIdp::start().await.unwrap();
    let unauthorized = Answer::bytes(401, "text/plain", "x".repeat(100_000));
    idp.api_answers("/api/never", unauthorized);
    idp.then(Answer::ok());
    idp.then(Answer::oauth_error("invalid_client"));
    let client = client(layer_for(&idp));
    let response = client.get(idp.api_url() + "never").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.text().await.unwrap().len(), 100_000);
    assert_eq!((idp.api_requests(), idp.token_requests()), (1, 2));
}

#[tokio::test]
async fn streaming_body_is_sent_once_unless_buffered() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.api_url() + "orders";
    let once = client(layer_for(&idp));
    let send =
        |client: &ClientWithMiddleware| client.post(&url).body(streaming(&["ab", "cd"])).send();
    assert_eq!(send(&once).await.unwrap().status(), 200);
    idp.revoke_all();
    assert_eq!(send(&once).await.unwrap().status(), 401);
    assert_eq!(send(&once).await.unwrap().status(), 200);
    assert_eq!((idp.api_requests(), idp.token_requests()), (3, 2));

    let auth = builder_for(&idp).resend(Buffered::new(4, Body::from));
    let twice = client(auth.build().unwrap());
    assert_eq!(send(&twice).await.unwrap().status(), 200);
    idp.revoke_all();
    assert_eq!(send(&twice).await.unwrap().status(), 200);
    assert_eq!(idp.api_requests(), 6);
    assert!(idp.api_log().iter().all(|request| request.body == "abcd"));
    let long = twice.post(&url).body(streaming(&["abc", "de"])).send();
    let error = long.await.unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::RequestBody);
    assert_eq!(idp.api_requests(), 6);
}

#[tokio::test]
async fn resend_off_returns_the_401() {
    let idp = MockIdp::start().await.unwrap();
    let auth = builder_for(&idp).resend(Off).build().unwrap();
    auth.cache().token().await.unwrap();
    idp.revoke_all();
    let client = client(auth);
    let response = client.get(idp.api_url()).send().await.unwrap();
    assert_eq!(response.status(), 401);
    soon(idp.token_requests_reach(2)).await;
    settle().await;
    assert_eq!(idp.api_requests(), 1);
}

#[tokio::test]
async fn middleware_error_contains_our_error() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::oauth_error("invalid_client"));
    let auth = layer_for(&idp);
    let error = client(auth.clone())
        .get(idp.api_url())
        .send()
        .await
        .unwrap_err();
    assert!(error.is_middleware());
    let error = ours(&error);
    assert_eq!(error.kind(), ErrorKind::OAuth);
    assert_eq!(
        error.oauth_error().unwrap().code().as_str(),
        "invalid_client"
    );
    assert!(error.retry_after().is_some());

    let any = client(
        BearerAuthLayer::builder(auth.cache().clone())
            .any_api()
            .build()
            .unwrap(),
    );
    let error = any
        .get("http://192.0.2.1/?q=canary")
        .send()
        .await
        .unwrap_err();
    assert_eq!(ours(&error).kind(), ErrorKind::Target);
    assert!(!format!("{error} {error:?}").contains("canary"));
    assert_eq!((idp.token_requests(), idp.api_requests()), (1, 0));
}
