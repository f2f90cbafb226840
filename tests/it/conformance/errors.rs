//! Errors of the token endpoint, and when the client retries (RFC 6749 §5.2, RFC 9110 §10.2.3, §15.4).

use std::time::Duration;

use bearer_auth::{
    ClientCredentials, ErrorKind, OAuthErrorCode as Code, TokenCache,
    testing::{Answer, ManualClock, MockIdp},
};
use serde_json::json;
use tokio::net::TcpSocket;

use super::rig::*;

#[tokio::test]
async fn p47_error_codes_are_typed_and_texts_are_optional() {
    for (code, expected, retryable) in [
        ("invalid_request", Code::InvalidRequest, false),
        ("invalid_client", Code::InvalidClient, false),
        ("invalid_grant", Code::InvalidGrant, false),
        ("unauthorized_client", Code::UnauthorizedClient, false),
        ("unsupported_grant_type", Code::UnsupportedGrantType, false),
        ("invalid_scope", Code::InvalidScope, false),
        ("invalid_target", Code::InvalidTarget, false),
        ("use_dpop_nonce", Code::UseDpopNonce, false),
        ("foo", Code::Other("foo".to_owned()), false),
        ("server_error", Code::ServerError, true),
        (
            "temporarily_unavailable",
            Code::TemporarilyUnavailable,
            true,
        ),
    ] {
        let error = answered(Answer::oauth_error(code)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OAuth);
        assert_eq!(error.status().unwrap(), 400);
        assert_eq!(error.is_retryable(), retryable, "{code}");
        let oauth = error.oauth_error().unwrap();
        assert_eq!((oauth.code(), oauth.code().as_str()), (&expected, code));
        assert_eq!((oauth.description(), oauth.uri()), (None, None));
        assert!(error.to_string().contains(code));
    }
    let error = answered(Answer::json(
        400,
        json!({"error": "foo", "error_description": "a canary", "error_uri": "not a URI: canary"}),
    ))
    .await
    .unwrap_err();
    assert_eq!(kind(&error, "canary"), ErrorKind::OAuth);
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.description(), Some("a canary"));
    assert_eq!(oauth.uri(), Some("not a URI: canary"));
}

#[tokio::test]
async fn p48_c12_wrong_credentials_are_a_permanent_error_with_a_pause() {
    let rig = rig().await;
    let refusal = Answer::json(401, json!({"error": "invalid_client"}));
    rig.idp
        .then(refusal.header("www-authenticate", "Basic realm=\"token\""));
    for _ in 0..10 {
        let error = rig.try_get("a").await.unwrap_err();
        let error = error.token_error().unwrap();
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &Code::InvalidClient);
        assert!(!error.is_retryable());
        assert_eq!(error.retry_after(), Some(300 * SECOND));
    }
    assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (1, 0));
    assert!(rig.cache.try_token().is_none(), "no token is cached");
    // The credentials are valid again.
    rig.clock.advance(300 * SECOND);
    assert_eq!(rig.get("a").await.status(), 200);
}

#[tokio::test]
async fn p50_c3_malformed_error_responses_are_typed_errors() {
    let html = "<html>canary 502 Bad Gateway</html>";
    for (answer, expected, status) in [
        (
            Answer::json(200, json!({"error": "invalid_grant"})),
            ErrorKind::OAuth,
            Some(200),
        ),
        (
            Answer::json(400, json!({"error": "invalid_grant"})),
            ErrorKind::OAuth,
            Some(400),
        ),
        (
            Answer::bytes(502, "text/html", html),
            ErrorKind::Status,
            Some(502),
        ),
        (
            Answer::json(500, json!({"confusing": "canary"})),
            ErrorKind::Status,
            Some(500),
        ),
        (Answer::status(404), ErrorKind::Status, Some(404)),
        (
            Answer::json(429, json!({"message": "canary", "error": 429})),
            ErrorKind::OAuth,
            Some(429),
        ),
        (
            Answer::json(400, json!({"error": {"code": "canary"}})),
            ErrorKind::OAuth,
            Some(400),
        ),
        (
            Answer::bytes(200, "text/html", html),
            ErrorKind::InvalidResponse,
            None,
        ),
        (
            Answer::json(200, json!({"confusing": "canary"})),
            ErrorKind::InvalidResponse,
            None,
        ),
        (
            Answer::json(200, json!(null)),
            ErrorKind::InvalidResponse,
            None,
        ),
        (
            Answer::json(200, json!(["canary"])),
            ErrorKind::InvalidResponse,
            None,
        ),
        (
            Answer::bytes(200, "application/json", r#"{"access_token":"canary"#),
            ErrorKind::InvalidResponse,
            None,
        ),
        (Answer::truncated(), ErrorKind::Transport, None),
        (Answer::garbage(), ErrorKind::Transport, None),
        (Answer::drop_connection(), ErrorKind::Transport, None),
    ] {
        let shown = format!("{answer:?}");
        let error = answered(answer).await.unwrap_err();
        assert_eq!(kind(&error, "canary"), expected, "{shown}");
        assert_eq!(error.status().map(|s| s.as_u16()), status, "{shown}");
        if expected == ErrorKind::OAuth {
            let code = error.oauth_error().unwrap().code();
            assert!(matches!(code, Code::InvalidGrant | Code::Malformed));
        }
    }
}

#[tokio::test]
async fn p50_control_characters_are_removed_from_errors() {
    let error = answered(Answer::json(
        400,
        json!({"error": "\u{1b}[31mred", "error_description": "\u{1b}[2Jgone\r\n\u{9b}x"}),
    ))
    .await
    .unwrap_err();
    assert!(!format!("{error}{error:?}").contains('\u{1b}'));
    assert_eq!(error.to_string().lines().count(), 1);
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.code(), &Code::Malformed);
    assert_eq!(oauth.description(), Some("[2Jgonex"));
}

#[tokio::test]
async fn p51_outage_is_retried_a_bounded_number_of_times() {
    for answer in [
        || Answer::status(503),
        || Answer::status(500),
        || Answer::status(429),
        || Answer::oauth_error("temporarily_unavailable"),
        || Answer::oauth_error("server_error"),
        // 429 is retried with any OAuth error code.
        || Answer::json(429, json!({"error": "invalid_request"})),
    ] {
        let rig = rig().await;
        rig.idp.then(answer());
        rig.idp.then(answer());
        let task = rig.spawn_token();
        assert!(rig.pass_pauses(task).await.is_ok(), "{:?}", answer());
        assert_eq!(rig.idp.token_requests(), 3);

        let rig = rig_always(answer()).await;
        let task = rig.spawn_token();
        assert!(rig.pass_pauses(task).await.is_err());
        assert_eq!(rig.idp.token_requests(), 3, "at most");
        assert!(rig.cache.token().await.is_err());
        assert_eq!(rig.idp.token_requests(), 3, "then a backoff");
    }
    for (answer, kind) in [
        (Answer::oauth_error("invalid_scope"), ErrorKind::OAuth),
        (Answer::status(400), ErrorKind::Status),
        (Answer::status(404), ErrorKind::Status),
        // The request may have arrived: no immediate retry.
        (Answer::drop_connection(), ErrorKind::Transport),
    ] {
        let rig = rig_always(answer).await;
        let task = rig.spawn_token();
        assert_eq!(rig.pass_pauses(task).await.unwrap_err().kind(), kind);
        assert_eq!(rig.idp.token_requests(), 1);
    }
}

async fn rig_always(answer: Answer) -> Rig {
    let rig = rig().await;
    rig.idp.always(answer);
    rig
}

#[tokio::test]
async fn p51_refused_connection_is_retried() {
    // A bound port without a listener.
    let unused = TcpSocket::new_v4().unwrap();
    unused.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/token", unused.local_addr().unwrap());
    let clock = ManualClock::new();
    let source = ClientCredentials::builder(url, "client-id", "client-secret");
    let cache = TokenCache::builder(source.build().unwrap()).clock(clock.clone());
    let rig = rig_of(clock, MockIdp::start().await.unwrap(), cache.build());

    let before = rig.clock.system_time();
    let task = rig.spawn_token();
    let error = rig.pass_pauses(task).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.is_retryable());
    let passed = rig.clock.system_time().duration_since(before).unwrap();
    assert_eq!(passed, Duration::from_millis(200 + 400), "two pauses");
}

#[tokio::test]
async fn p51_p236_short_retry_after_is_waited_for() {
    let rig = rig().await;
    rig.idp.then(Answer::status(429).header("retry-after", "2"));
    let task = rig.spawn_token();
    // The timers of the time limit and of the waiter exist from the start; the pause is the third.
    while rig.clock.next_wakeup() != Some(2 * SECOND) {
        tokio::task::yield_now().await;
    }
    rig.clock.advance(2 * SECOND - NANO);
    rig.clock.settle().await;
    assert_eq!(rig.clock.next_wakeup(), Some(NANO), "still waiting");
    assert_eq!(rig.idp.token_requests(), 1);
    rig.clock.advance(NANO);
    assert!(task.await.unwrap().is_ok());
    assert_eq!(rig.idp.token_requests(), 2);
}

#[tokio::test]
async fn p236_retry_after_is_read_in_all_forms() {
    for (value, seconds) in [
        ("120", 120),
        ("999999", 600),
        ("99999999999999999999999", 600),
        // In the past, or invalid: the usual retries and a pause of at most one second.
        ("Fri, 31 Dec 1999 23:59:59 GMT", 1),
        ("-1", 1),
        ("abc", 1),
        ("1.5", 1),
        ("", 1),
        ("0", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
    ] {
        for status in [429, 503] {
            let answer = Answer::status(status).header("retry-after", value);
            let rig = rig_always(answer).await;
            let task = rig.spawn_token();
            let error = rig.pass_pauses(task).await.unwrap_err();
            let wait = Duration::from_secs(seconds);
            assert_eq!(error.retry_after(), Some(wait), "{value}");
            let asked = rig.idp.token_requests();
            assert_eq!(asked, if seconds == 1 { 3 } else { 1 }, "{value}");

            // Obeyed to the nanosecond.
            rig.idp.recover();
            rig.clock.advance(wait - NANO);
            rig.cache.token().await.unwrap_err();
            assert_eq!(rig.idp.token_requests(), asked);
            rig.clock.advance(NANO);
            rig.cache.token().await.unwrap();
        }
    }
}

#[tokio::test]
async fn p238_redirect_of_the_token_endpoint_is_an_error() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = MockIdp::start().await.unwrap();
        let rig =
            rig_always(Answer::status(status).header("location", &elsewhere.token_url())).await;
        let error = rig.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
        assert_eq!(error.status().unwrap(), status);
        assert!(!error.is_retryable());
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("redirect") && !shown.contains("127.0.0.1"));
        assert_eq!(rig.idp.token_requests(), 1);
        assert_eq!(elsewhere.token_requests(), 0);
    }
}

#[tokio::test]
async fn c14_concurrent_callers_share_one_failure() {
    let rig = rig_always(Answer::oauth_error("invalid_client")).await;
    let hold = rig.idp.hold();
    let waiting: Vec<_> = (0..50).map(|_| rig.spawn_token()).collect();
    rig.idp.token_requests_reach(1).await;
    rig.clock.settle().await;
    hold.release();
    for waiting in waiting {
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), &Code::InvalidClient);
    }
    assert_eq!(rig.idp.token_requests(), 1);
}
