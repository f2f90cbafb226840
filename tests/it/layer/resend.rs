//! After a 401: which requests are resent, and which response the caller gets.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use bearer_auth::{
    BearerAuthLayer, Error, ErrorKind, FetchReason, TokenCache, TokenResponse,
    resend::{Buffered, Off},
    source_fn,
    testing::{Answer, ManualClock, MockIdp, Recorded},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Version, header::CONTENT_LENGTH};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_layer::Layer as _;

use crate::support::http::*;

type Body = BoxBody<Bytes, std::io::Error>;

fn streaming(chunks: &'static [&'static str]) -> Body {
    let chunks = chunks
        .iter()
        .map(|chunk| Ok(Frame::data(Bytes::from(*chunk))));
    BodyExt::boxed(StreamBody::new(stream::iter(chunks)))
}

/// A body of declared length.
fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// Sets up a route that always answers 401 with a large body, and returns its URL.
fn rejecting(idp: &MockIdp) -> String {
    let unauthorized = Answer::bytes(401, "text/plain", "x".repeat(100_000));
    idp.api_answers("/api/never", unauthorized.header("x-kept", "yes"));
    idp.api_url() + "never"
}

fn assert_rejected(response: &http::Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["x-kept"], "yes");
}

#[tokio::test]
async fn without_resend_the_401_is_returned_with_its_body() {
    let idp = MockIdp::start().await.unwrap();
    let url = rejecting(&idp);
    let client = builder_for(&idp)
        .resend(Off)
        .build()
        .unwrap()
        .layer(http1::<NoBody>());
    let response = client.oneshot(get(url)).await.unwrap();
    assert_rejected(&response);
    assert_eq!(text(response).await.len(), 100_000);
    assert_eq!(idp.api_requests(), 1);
    // The cache refreshes for later requests.
    soon(idp.token_requests_reach(2)).await;
}

#[tokio::test]
async fn failed_token_request_returns_the_401_with_its_body() {
    for answer in [
        Answer::oauth_error("invalid_client"),
        Answer::status(400),
        Answer::garbage(),
        Answer::drop_connection(),
    ] {
        let idp = MockIdp::start().await.unwrap();
        let url = rejecting(&idp);
        let auth = layer_for(&idp);
        auth.cache().token().await.unwrap();
        idp.always(answer);
        let response = auth
            .layer(http1::<NoBody>())
            .oneshot(get(url))
            .await
            .unwrap();
        assert_rejected(&response);
        assert_eq!(text(response).await.len(), 100_000);
        assert_eq!(idp.api_requests(), 1);
        // The token that this route rejected still serves other routes.
        let response = auth
            .layer(http1::<NoBody>())
            .oneshot(get(idp.api_url()))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn same_token_again_is_not_resent() {
    let idp = MockIdp::start().await.unwrap();
    idp.repeat_token(true);
    let url = rejecting(&idp);
    let response = layer_for(&idp)
        .layer(http1::<NoBody>())
        .oneshot(get(url))
        .await
        .unwrap();
    assert_rejected(&response);
    assert_eq!(text(response).await.len(), 100_000);
    assert_eq!((idp.api_requests(), idp.token_requests()), (1, 2));
}

/// The cache keeps the rejected token, which has not expired, but the resend must not use it.
#[tokio::test]
async fn resend_uses_a_new_token_that_is_expired_on_arrival() {
    let idp = MockIdp::start().await.unwrap();
    let client = layer_for(&idp).layer(http1::<NoBody>());
    let call = || client.clone().oneshot(get(idp.api_url()));
    assert_eq!(call().await.unwrap().status(), 200);
    idp.revoke("token-1");
    // The new token claims to be expired; the API accepts it.
    idp.set_expires_in(Some("0"));
    assert_eq!(call().await.unwrap().status(), 200);
    assert_eq!((idp.api_requests(), idp.token_requests()), (3, 2));
}

#[tokio::test]
async fn p232_boxed_body_is_sent_once_and_the_next_request_has_a_new_token() {
    let idp = MockIdp::start().await.unwrap();
    let client = layer_for(&idp).layer(http1::<Body>());
    let url = idp.api_url() + "orders";
    let call = |body| client.clone().oneshot(post(&url, body));
    assert_eq!(call(streaming(&["a", "b"])).await.unwrap().status(), 200);
    idp.revoke("token-1");
    // Even a body of known length: boxing hides that it is in memory.
    let response = call(whole("cd".into())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    assert_eq!(call(streaming(&["e", "f"])).await.unwrap().status(), 200);
    let bodies: Vec<_> = idp.api_log().iter().map(|r| r.body.clone()).collect();
    assert_eq!(bodies, ["ab", "cd", "ef"]);
    assert_eq!(idp.token_requests(), 2);
}

type Rebuild = fn(Bytes) -> Body;

fn buffered(idp: &MockIdp, limit: usize) -> BearerAuthLayer<Buffered<Rebuild>> {
    let rebuild: Rebuild = whole;
    builder_for(idp)
        .resend(Buffered::new(limit, rebuild))
        .build()
        .unwrap()
}

#[tokio::test]
async fn buffered_resends_a_stream_up_to_its_limit() {
    for (limit, chunks) in [(6, &["abc", "", "def"][..]), (0, &[])] {
        let idp = MockIdp::start().await.unwrap();
        let client = buffered(&idp, limit).layer(http1());
        let url = idp.api_url() + "orders";
        let call = |body| client.clone().oneshot(post(&url, body));
        assert_eq!(call(streaming(chunks)).await.unwrap().status(), 200);
        idp.revoke("token-1");
        assert_eq!(call(streaming(chunks)).await.unwrap().status(), 200);
        let log = idp.api_log();
        assert_eq!(log.len(), 3);
        let sent = chunks.concat();
        assert!(log.iter().all(|request| request.body == sent));
        // The buffered body is sent with its length.
        let chunked = |r: &Recorded| r.headers.contains_key("transfer-encoding");
        assert!(!log.iter().any(chunked));
    }
}

#[tokio::test]
async fn buffered_streams_a_body_whose_declared_length_is_above_the_limit() {
    let idp = MockIdp::start().await.unwrap();
    let client = buffered(&idp, 3).layer(http1());
    let url = idp.api_url() + "orders";
    let by_header = |body| {
        let mut request = post(&url, body);
        request.headers_mut().insert(CONTENT_LENGTH, 4.into());
        request
    };
    for request in [
        post(&url, whole("long".into())),
        by_header(streaming(&["lo", "ng"])),
    ] {
        idp.revoke_all();
        let before = idp.api_requests();
        let tokens = idp.tokens_issued();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), if tokens == 0 { 200 } else { 401 });
        assert_eq!(idp.api_requests(), before + 1);
    }
    assert!(idp.api_log().iter().all(|request| request.body == "long"));
}

#[tokio::test]
async fn buffered_fails_a_stream_that_exceeds_the_limit() {
    let idp = MockIdp::start().await.unwrap();
    let client = buffered(&idp, 5).layer(http1());
    let request = post(idp.api_url(), streaming(&["abc", "def"]));
    let error = client.clone().oneshot(request).await.unwrap_err();
    let error = error.token_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    assert!(!error.is_retryable());
    assert_eq!((idp.api_requests(), idp.token_requests()), (0, 0));

    let broken = stream::iter([Err(std::io::Error::other("broken pipe of the caller"))]);
    let broken = BodyExt::boxed(StreamBody::new(broken));
    let error = client
        .oneshot(post(idp.api_url(), broken))
        .await
        .unwrap_err();
    let error = error.token_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    let cause = std::error::Error::source(error).unwrap();
    assert!(cause.is::<std::io::Error>(), "{cause:?}");
}

#[tokio::test]
async fn buffered_request_can_be_spawned_and_queued() {
    let idp = MockIdp::start().await.unwrap();
    let client = ServiceBuilder::new()
        .buffer(4)
        .layer(buffered(&idp, 100))
        .service(http1());
    let request = post(idp.api_url(), streaming(&["abc"]));
    let response = soon(tokio::spawn(client.oneshot(request))).await.unwrap();
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn renew_on_replaces_the_401_rule() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/expired", Answer::status(419));
    let auth = builder_for(&idp)
        .renew_on(|status, _| status == 419)
        .build()
        .unwrap();
    let client = auth.layer(http1::<NoBody>());
    let response = client
        .clone()
        .oneshot(get(idp.api_url() + "expired"))
        .await
        .unwrap();
    assert_eq!(response.status(), 419);
    assert_eq!((idp.api_requests(), idp.token_requests()), (2, 2));
    // A 401 no longer rejects the token.
    idp.revoke_all();
    let response = client.oneshot(get(idp.api_url())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!((idp.api_requests(), idp.token_requests()), (3, 2));
}

#[tokio::test]
async fn resend_differs_from_the_first_request_only_in_its_token() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u32);

    let api = Api::that_accepts(&["t-2"]);
    let client = BearerAuthLayer::builder(numbered())
        .any_api()
        .build()
        .unwrap()
        .layer(api.clone());
    let request = Request::patch("https://api.example/a?b=c")
        .version(Version::HTTP_2)
        .header("x-twice", "1")
        .header("x-twice", "2")
        .extension(Mark(7))
        .body(vec![1u8])
        .unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
    let [first, second] = api.seen().try_into().unwrap();
    assert_eq!(first.authorization(), Some("Bearer t-1"));
    assert_eq!(second.authorization(), Some("Bearer t-2"));
    for seen in [first, second] {
        assert_eq!(
            (seen.method.as_str(), seen.uri.as_str()),
            ("PATCH", "https://api.example/a?b=c")
        );
        assert_eq!(seen.version, Version::HTTP_2);
        assert_eq!(seen.extensions.get(), Some(&Mark(7)));
        let twice: Vec<_> = seen.headers.get_all("x-twice").iter().collect();
        assert_eq!(twice, ["1", "2"]);
        assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
        assert!(seen.headers["authorization"].is_sensitive());
    }
}

#[tokio::test]
async fn dropped_caller_does_not_cancel_the_token_request_after_a_401() {
    let idp = MockIdp::start().await.unwrap();
    let auth = layer_for(&idp);
    auth.cache().token().await.unwrap();
    idp.revoke("token-1");
    let hold = idp.hold();
    let request = auth.layer(http1::<NoBody>()).oneshot(get(idp.api_url()));
    let caller = tokio::spawn(request);
    soon(idp.token_requests_reach(2)).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    hold.release();
    let response = auth
        .layer(http1::<NoBody>())
        .oneshot(get(idp.api_url()))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(idp.token_requests(), 2);
}

#[tokio::test]
async fn source_gets_the_rejected_token() {
    let calls = AtomicUsize::new(0);
    let source = source_fn(move |request| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            let rejected = request
                .rejected
                .map(|token| token.expose_secret().to_owned());
            match (call, request.reason, rejected.as_deref()) {
                (0, FetchReason::First, None) => TokenResponse::builder("t-1").build(),
                (1, FetchReason::Rejected, Some("t-1")) => TokenResponse::builder("t-2").build(),
                other => Err(Error::from_source(format!("{other:?}"))),
            }
        }
    });
    let cache = TokenCache::builder(source)
        .clock(ManualClock::new())
        .build();
    let api = Api::that_accepts(&["t-2"]);
    let client = BearerAuthLayer::builder(cache)
        .any_api()
        .build()
        .unwrap()
        .layer(api.clone());
    let response = client.oneshot(get::<()>("https://h/")).await.unwrap();
    assert_eq!(response.status(), 200);
}
