//! Requests to the API, and its responses (RFC 6750, RFC 9110 §11, §15).

use bearer_auth::{
    BearerAuthLayer, TokenCache,
    testing::{Answer, Dialect, ManualClock, MockIdp},
};
use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower::{Layer as _, Service as _, ServiceExt as _};

use super::rig::*;

#[tokio::test]
async fn p54_c11_c16_concurrent_callers_share_one_token_request() {
    let rig = rig().await;
    let hold = rig.idp.hold();
    let first = rig.spawn_token();
    rig.idp.token_requests_reach(1).await;
    let others: Vec<_> = (0..100).map(|_| rig.spawn_token()).collect();
    rig.clock.settle().await;
    // The caller that started the token request is cancelled.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    hold.release();
    for other in others {
        let token = other.await.unwrap().unwrap();
        assert_eq!(token.expose_secret(), "token-1");
    }
    assert_eq!(rig.idp.token_requests(), 1);
}

#[tokio::test]
async fn p57_c15_failed_refresh_keeps_the_valid_token() {
    let rig = rig().await;
    rig.idp.set_lifetime(300 * SECOND);
    rig.get("a").await;
    rig.clock.advance(270 * SECOND); // 30 s left: in the refresh window
    rig.idp.then(Answer::status(503));
    assert_eq!(rig.get("b").await.status(), 200);
    rig.idp.token_requests_reach(2).await;
    rig.landed().await;
    assert!(rig.cache.status().last_error.is_some());
    assert_eq!(rig.get("c").await.status(), 200);
    assert_eq!(rig.seen(), ["Bearer token-1"; 3]);
    assert_eq!(rig.idp.token_requests(), 2, "backing off");
    // Later refreshes continue.
    rig.clock.advance(SECOND);
    assert_eq!(rig.get("d").await.status(), 200);
    rig.idp.token_requests_reach(3).await;
    rig.landed().await;
    assert_eq!(rig.get("e").await.status(), 200);
    assert_eq!(rig.seen()[4], "Bearer token-2");
}

#[tokio::test]
async fn p58_token_is_in_one_header_only() {
    let rig = rig().await;
    let request = Request::post(rig.url("a?b=c"))
        .body(Full::from("d=e"))
        .unwrap();
    assert_eq!(rig.send(request).await.unwrap().status(), 200);
    assert_eq!(rig.seen(), ["Bearer token-1"]);
    let request = only(rig.idp.api_log());
    assert_eq!(request.target, "/api/a?b=c");
    assert_eq!(body(&request), "d=e");
    let named = |value: &http::HeaderValue| value.as_bytes().ends_with(b"token-1");
    assert_eq!(request.headers.values().filter(|v| named(v)).count(), 1);
}

#[tokio::test]
async fn p59_caller_s_own_header_is_kept() {
    let rig = rig().await;
    let request = Request::get(rig.url("a"))
        .header(AUTHORIZATION, "Basic b3duOm93bg==")
        .body(Full::default())
        .unwrap();
    // A 401 about the caller's token.
    assert_eq!(rig.send(request).await.unwrap().status(), 401);
    assert_eq!(rig.seen(), ["Basic b3duOm93bg=="]);
    assert_eq!(rig.idp.token_requests(), 0);
}

#[tokio::test]
async fn p65_c13_rejected_token_is_replaced_and_the_request_sent_again() {
    let rig = rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    let response = rig.get("b").await;
    assert_eq!(response.status(), 200);
    assert_eq!(rig.idp.api_unauthorized(), 1);
    assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (2, 3));
}

/// `tests/it/cache` tests this at the cache.
#[tokio::test]
async fn p66_c17_late_401_about_an_old_token_leaves_the_newer_one_alone() {
    let rig = rig().await;
    rig.get("a").await;
    rig.idp.api_answers("/api/slow", Answer::ok().delay(SECOND));
    rig.idp.revoke("token-1");
    let slow = rig.spawn_get("slow");
    rig.idp.api_requests_reach(2).await;
    assert_eq!(rig.get("b").await.status(), 200); // 401, and sent again with token-2
    assert_eq!(rig.idp.api_requests(), 4);
    rig.clock.advance(SECOND); // the slow 401 arrives, about token-1
    rig.idp.api_requests_reach(5).await;
    rig.clock.advance(SECOND);
    assert_eq!(slow.await.unwrap().status(), 200);
    assert_eq!(rig.seen()[4], "Bearer token-2");
    assert_eq!(rig.idp.token_requests(), 2);
    let token = rig.cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "token-2");
}

#[tokio::test]
async fn p66_fifty_401s_cause_one_token_request() {
    let rig = rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    let hold = rig.idp.hold();
    let requests: Vec<_> = (0..50).map(|_| rig.spawn_get("b")).collect();
    rig.idp.api_requests_reach(51).await;
    rig.idp.token_requests_reach(2).await;
    hold.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    assert_eq!(rig.idp.token_requests(), 2);
}

/// Checks that the layer passes on this response, and returns the number of token requests.
async fn passed_on(answer: Answer, body: &str) -> usize {
    let rig = rig().await;
    rig.idp.api_answers("/api/x", answer);
    let response = rig.get("x").await;
    assert_eq!(response.body(), body, "the answer is the API's own");
    assert_eq!(rig.idp.api_requests(), 1);
    rig.landed().await;
    assert!(rig.cache.status().ready);
    rig.idp.token_requests()
}

#[tokio::test]
async fn p67_p68_p233_p235_other_responses_are_passed_on() {
    for (status, challenge) in [
        (403, r#"Bearer error="insufficient_scope", scope="w""#),
        (400, r#"Bearer error="invalid_request""#),
        (403, ""),
        (403, r#"Bearer error="invalid_token""#),
        (200, r#"Bearer error="invalid_token""#),
        (400, r#"Bearer error="invalid_token""#),
        (500, r#"Bearer error="invalid_token""#),
    ] {
        let mut answer = Answer::bytes(status, "text/plain", "says the API");
        if !challenge.is_empty() {
            answer = answer.header("www-authenticate", challenge);
        }
        let token_requests = passed_on(answer, "says the API").await;
        assert_eq!(token_requests, 1, "{status} {challenge}");
    }
}

#[tokio::test]
async fn p67_insufficient_scope_challenge_is_passed_on() {
    let rig = rig().await;
    let challenge = r#"Bearer error="insufficient_scope", scope="w""#;
    let answer = Answer::status(403).header("www-authenticate", challenge);
    rig.idp.api_answers("/api/x", answer);
    assert_eq!(rig.get("x").await.headers()["www-authenticate"], challenge);
}

#[tokio::test]
async fn p69_c25_p231_unauthorized_without_an_error_code_refreshes_once() {
    // The mock's 401 without credentials has no error code; its terse dialect has no challenge.
    for answer in [
        Answer::status(401).header("www-authenticate", "Bearer realm=\"api\""),
        Answer::status(401),
    ] {
        let rig = rig().await;
        rig.idp.api_answers("/api/x", answer);
        assert_eq!(rig.get("x").await.status(), 401);
        assert_eq!(rig.seen(), ["Bearer token-1", "Bearer token-2"]);
        assert_eq!(rig.idp.token_requests(), 2);
    }
    let builder = MockIdp::builder().dialect(Dialect::Terse);
    let idp = builder
        .client("client-id", "client-secret")
        .start()
        .await
        .unwrap();
    let cache = TokenCache::new(client(&idp).build().unwrap());
    let rig = rig_of(ManualClock::new(), idp, cache);
    rig.get("a").await;
    rig.idp.revoke_all();
    assert_eq!(rig.get("b").await.status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);
}

#[tokio::test]
async fn p231_c25_renew_on_replaces_the_rule() {
    let rig = rig().await;
    let challenged = |status: http::StatusCode, headers: &http::HeaderMap| {
        status == 401 && headers.contains_key("www-authenticate")
    };
    let api = BearerAuthLayer::builder(rig.cache.clone())
        .api(rig.idp.api_url())
        .renew_on(challenged)
        .build()
        .unwrap()
        .layer(http());
    let get = |path: &str| {
        let request = Request::get(rig.url(path)).body(Full::default()).unwrap();
        api.clone().oneshot(request)
    };
    rig.idp.api_answers("/api/bare", Answer::status(401));
    assert_eq!(get("bare").await.unwrap().status(), 401);
    assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (1, 1));
    rig.idp.revoke_all();
    assert_eq!(get("a").await.unwrap().status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);

    // Challenges for other schemes only are not about the token.
    let basic = Answer::bytes(401, "text/plain", "log in").header("www-authenticate", "Basic");
    assert_eq!(passed_on(basic, "log in").await, 1);
}

#[tokio::test]
async fn p230_c13_second_401_is_returned_to_the_caller() {
    let rig = rig().await;
    let refusal = Answer::bytes(401, "text/plain", "no, and no");
    let refusal = refusal.header("www-authenticate", r#"Bearer error="invalid_token""#);
    rig.idp.api_answers("/api/x", refusal);
    let response = rig.get("x").await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.body(), "no, and no");
    rig.landed().await;
    assert_eq!(rig.seen(), ["Bearer token-1", "Bearer token-2"]);
    assert_eq!(rig.idp.token_requests(), 2, "one for this request");
}

#[tokio::test]
async fn p232_body_in_memory_is_sent_again_verbatim() {
    let rig = rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let request = Request::post(rig.url("b?c=d"))
        .header("x-a", "1")
        .body(Full::from(bytes.clone()))
        .unwrap();
    assert_eq!(rig.send(request).await.unwrap().status(), 200);
    let [_, refused, again] = <[_; 3]>::try_from(rig.idp.api_log()).unwrap();
    assert_eq!(refused.body, bytes);
    assert_eq!(again.body, bytes);
    assert_eq!(
        (&again.method, &again.target),
        (&refused.method, &refused.target)
    );
    assert_eq!(again.header("x-a"), Some("1"));
}

#[tokio::test]
async fn p232_streaming_body_is_not_sent_again() {
    type Streaming = BoxBody<Bytes, std::convert::Infallible>;

    let rig = rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    let inner = Client::builder(TokioExecutor::new()).build_http::<Streaming>();
    let api = rig.auth.layer(inner);
    let post = || {
        let frames = [Ok(http_body::Frame::data(Bytes::from_static(b"once")))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post(rig.url("b")).body(body.boxed()).unwrap();
        api.clone().oneshot(request)
    };
    let response = post().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    rig.idp.token_requests_reach(2).await;
    rig.landed().await;
    // The next request has the new token.
    assert_eq!(post().await.unwrap().status(), 200);
    assert_eq!(rig.seen()[1..], ["Bearer token-1", "Bearer token-2"]);
    assert_eq!(rig.idp.token_requests(), 2);
}

#[tokio::test]
async fn p234_response_407_of_a_proxy_is_passed_on() {
    let answer = Answer::bytes(407, "text/plain", "pay here")
        .header("proxy-authenticate", r#"Bearer error="invalid_token""#);
    assert_eq!(passed_on(answer, "pay here").await, 1);
    let rig = rig().await;
    rig.idp.api_answers("/api/x", Answer::status(407));
    assert_eq!(rig.get("x").await.status(), 407);
    let request = only(rig.idp.api_log());
    assert!(!request.headers.contains_key("proxy-authorization"));
}

#[tokio::test]
async fn p237_c19_redirect_followed_by_the_client_keeps_the_token_within_the_api() {
    let rig = rig().await;
    let other = MockIdp::start().await.unwrap();
    rig.idp
        .api_answers("/api/away", Answer::redirect(&(other.api_url() + "x")));
    rig.idp
        .api_answers("/api/moved", Answer::redirect(&rig.url("here")));
    let api = rig.auth.layer(local_reqwest());
    let get = |path: &str| {
        let url = rig.url(path).parse().unwrap();
        api.clone()
            .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
    };
    assert_eq!(get("moved").await.unwrap().status(), 200);
    assert_eq!(rig.seen(), ["Bearer token-1"; 2]);
    // The 401 is the other host's, which did not get the token.
    assert_eq!(get("away").await.unwrap().status(), 401);
    let request = only(other.api_log());
    assert_eq!(request.path(), "/api/x");
    assert!(!request.headers.contains_key("authorization"));
    assert_eq!(rig.idp.token_requests(), 1);
}

#[tokio::test]
async fn p237_c19_redirect_followed_above_the_layer_is_a_new_request() {
    let rig = rig().await;
    let other = MockIdp::start().await.unwrap();
    let elsewhere = other.api_url() + "x";
    rig.idp
        .api_answers("/api/away", Answer::redirect(&elsewhere));
    rig.idp
        .api_answers("/api/moved", Answer::redirect(&rig.url("here")));
    for (path, status) in [("moved", 200), ("away", 401)] {
        let response = rig.get(path).await;
        let location = response.headers()["location"].to_str().unwrap();
        let request = Request::get(location).body(Full::default()).unwrap();
        assert_eq!(rig.send(request).await.unwrap().status(), status);
    }
    assert_eq!(rig.seen(), ["Bearer token-1"; 3]);
    let request = only(other.api_log());
    assert!(!request.headers.contains_key("authorization"));
}

#[tokio::test]
async fn p239_rejection_by_one_api_does_not_affect_another() {
    let (a, b) = (rig().await, rig().await);
    a.get("x").await;
    b.get("x").await;
    a.idp.revoke_all();
    assert_eq!(a.get("y").await.status(), 200);
    a.idp.always(Answer::oauth_error("invalid_client"));
    a.idp.revoke_all();
    assert_eq!(a.get("y").await.status(), 401);
    assert_eq!(b.get("y").await.status(), 200);
    assert_eq!(b.seen(), ["Bearer token-1"; 2]);
    assert_eq!(b.idp.token_requests(), 1);
}

#[tokio::test]
async fn c18_request_without_a_token_is_not_sent() {
    let rig = rig().await;
    rig.idp.always(Answer::oauth_error("unauthorized_client"));
    assert!(rig.try_get("a").await.unwrap_err().token_error().is_some());
    let no_cache = BearerAuthLayer::builder(rig.cache.clone())
        .any_api()
        .build()
        .unwrap()
        .layer(http());
    let request = Request::get(rig.url("a")).body(Full::default()).unwrap();
    let mut service = no_cache.clone();
    let error = service.ready().await.unwrap().call(request).await;
    assert!(error.unwrap_err().token_error().is_some());
    assert_eq!(rig.idp.api_requests(), 0);
}

/// The mock gets the path and the token.
#[tokio::test]
async fn p70_token_is_sent_over_http_to_loopback() {
    let rig = rig().await;
    let seen: Value = serde_json::from_slice(rig.get("a/b").await.body()).unwrap();
    assert_eq!(
        seen,
        json!({"path": "/api/a/b", "method": "GET", "token": "token-1", "body": ""})
    );
}

/// A client that ignores proxies in the environment.
fn local_reqwest() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    client.build().unwrap()
}
