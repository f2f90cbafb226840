//! Token responses (RFC 6749 §5.1).
//!
//! `src/client/endpoint/response/tests.rs` has the parser's tables.

use std::time::Duration;

use bearer_auth::{
    ErrorKind, TokenCache,
    testing::{Answer, MockIdp},
};
use serde_json::{Value, json};

use super::rig::*;

fn json_answer(value: Value) -> Answer {
    Answer::json(200, value)
}

#[tokio::test]
async fn p35_narrower_scope_is_accepted_and_shown() {
    let rig = rig_with(|source| source.scope("a b")).await;
    rig.idp.then(json_answer(
        json!({"access_token": "x", "token_type": "Bearer", "scope": "a", "expires_in": 3600}),
    ));
    for _ in 0..10 {
        let token = rig.cache.token().await.unwrap();
        assert_eq!(token.scope(), Some("a"));
    }
    assert_eq!(rig.idp.token_requests(), 1);

    // A response without `scope` grants what was requested, and shows none.
    rig.idp.then(token("y"));
    let token = rig.cache.refresh().await.unwrap();
    assert_eq!(token.scope(), None);
}

#[tokio::test]
async fn p36_c4_response_without_a_token_is_an_error() {
    for access_token in [
        None,
        Some(json!("")),
        Some(json!(null)),
        Some(json!(123)),
        Some(json!({})),
        Some(json!(["x"])),
    ] {
        let mut answer = json!({"token_type": "Bearer", "expires_in": 3600});
        if let Some(value) = access_token {
            answer["access_token"] = value;
        }
        let rig = rig().await;
        rig.idp.always(json_answer(answer));
        let error = rig.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse);
        assert!(rig.cache.try_token().is_none());
        assert!(!rig.cache.status().ready);
        assert!(rig.try_get("a").await.is_err());
        assert_eq!(rig.idp.api_requests(), 0);
    }
}

#[tokio::test]
async fn p37_p60_token_type_is_case_insensitive_and_sent_as_bearer() {
    for token_type in ["bearer", "Bearer", "BEARER", "bEaReR"] {
        let rig = rig().await;
        rig.idp.always(json_answer(
            json!({"access_token": "mF_9.B5f-4.1JqM", "token_type": token_type}),
        ));
        rig.get("a").await;
        assert_eq!(rig.seen()[0], "Bearer mF_9.B5f-4.1JqM");
    }
}

#[tokio::test]
async fn p38_c4_token_of_another_type_is_an_error() {
    for token_type in [
        json!("mac"),
        json!("pop"),
        json!("DPoP"),
        json!(""),
        json!(1),
    ] {
        let rig = rig().await;
        rig.idp.always(json_answer(
            json!({"access_token": "x", "token_type": token_type, "expires_in": 3600}),
        ));
        let error = rig.try_get("a").await.unwrap_err();
        let error = error.token_error().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsupportedTokenType);
        assert!(!error.is_retryable());
        assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (1, 0));
    }
}

#[tokio::test]
async fn p39_c4_missing_token_type_is_bearer_unless_strict() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(json_answer(json!({"access_token": "x"})));
    let lenient = TokenCache::new(client(&idp).build().unwrap());
    assert_eq!(lenient.token().await.unwrap().header_value(), "Bearer x");
    let error = fetch(client(&idp).strict_token_type()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedTokenType);
}

#[tokio::test]
async fn p40_lifetime_counts_from_the_start_of_the_request() {
    let rig = rig().await;
    let sent_at = rig.clock.system_time();
    rig.idp.set_lifetime(20 * SECOND);
    rig.idp.then(Answer::ok().delay(10 * SECOND));
    let fetching = rig.spawn_token();
    rig.idp.token_requests_reach(1).await;
    rig.clock.advance(10 * SECOND);
    let token = fetching.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(sent_at + 20 * SECOND));
    rig.clock.advance(10 * SECOND - NANO);
    assert!(rig.cache.status().ready);
    rig.clock.advance(NANO);
    assert!(!rig.cache.status().ready);
}

#[tokio::test]
async fn p41_token_of_unknown_lifetime_serves_until_rejected() {
    for expires_in in [None, Some("null")] {
        let rig = rig().await;
        rig.idp.set_expires_in(expires_in);
        assert_eq!(rig.cache.token().await.unwrap().expires_at(), None);
        for _ in 0..10 {
            // The mock accepts the token for one hour.
            rig.clock.advance(300 * SECOND);
            assert_eq!(rig.get("a").await.status(), 200);
        }
        assert_eq!(rig.idp.token_requests(), 1);
        rig.idp.revoke_all();
        assert_eq!(rig.get("a").await.status(), 200);
        assert_eq!(rig.idp.token_requests(), 2);
    }
    // Or for the configured `default_lifetime`.
    let rig = rig().await;
    rig.idp.set_expires_in(None);
    let cache = TokenCache::builder(client(&rig.idp).build().unwrap())
        .clock(rig.clock.clone())
        .default_lifetime(60 * SECOND)
        .build();
    let end = rig.clock.system_time() + 60 * SECOND;
    assert_eq!(cache.token().await.unwrap().expires_at(), Some(end));
}

#[tokio::test]
async fn p42_c1_odd_expires_in_values_give_a_bounded_lifetime() {
    const MALFORMED: u64 = 5 * 60;
    for (expires_in, seconds) in [
        ("3600", 3600),
        ("\"3600\"", 3600),
        ("\"86400.92\"", 86_400),
        ("3599.7", 3599),
        ("-1", MALFORMED),
        ("\"-60\"", MALFORMED),
        ("\"abc\"", MALFORMED),
        ("\"3600abc\"", MALFORMED),
        ("false", MALFORMED),
        ("{}", MALFORMED),
    ] {
        let rig = rig().await;
        rig.idp.set_expires_in(Some(expires_in));
        let token = rig.cache.token().await.unwrap();
        let end = rig.clock.system_time() + Duration::from_secs(seconds);
        assert_eq!(token.expires_at(), Some(end), "{expires_in}");
    }
    for huge in ["2147483648", "18446744073709551615", "1e400", "\"1e400\""] {
        let rig = rig().await;
        rig.idp.set_expires_in(Some(huge));
        let token = rig.cache.token().await.unwrap();
        assert!(token.expires_at().is_some(), "{huge}");
        assert_eq!(rig.get("a").await.status(), 200);
        assert_eq!(rig.idp.token_requests(), 1);
    }
}

#[tokio::test]
async fn p43_short_lived_token_serves_several_requests() {
    let rig = rig().await;
    rig.idp.set_lifetime(10 * SECOND);
    let source = client(&rig.idp).build().unwrap();
    let cache = TokenCache::builder(source)
        .clock(rig.clock.clone())
        .safety_margin(60 * SECOND)
        .build();
    // Up to the earliest start of the refresh window, at three quarters of the lifetime.
    for _ in 0..100 {
        cache.token().await.unwrap();
        rig.clock.advance(7 * SECOND / 100);
    }
    assert_eq!(rig.idp.token_requests(), 1);
}

#[tokio::test]
async fn p43_token_with_zero_lifetime_serves_the_waiting_callers() {
    let rig = rig().await;
    rig.idp.set_expires_in(Some("0"));
    let hold = rig.idp.hold();
    let requests: Vec<_> = (0..10).map(|_| rig.spawn_get("a")).collect();
    rig.idp.token_requests_reach(1).await;
    rig.clock.settle().await;
    hold.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    assert_eq!(rig.seen(), ["Bearer token-1"; 10]);
    assert_eq!(rig.idp.token_requests(), 1);
    assert!(!rig.cache.status().ready, "not kept");

    // The next caller comes within the pause of a second, and waits for its end.
    let next = rig.spawn_get("a");
    rig.clock.settle().await;
    assert_eq!(rig.idp.token_requests(), 1);
    rig.clock.advance(SECOND);
    assert_eq!(next.await.unwrap().status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);
}

#[tokio::test]
async fn p44_repeated_member_is_an_error() {
    let rig = rig().await;
    rig.idp.always(Answer::bytes(
        200,
        "application/json",
        r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#,
    ));
    let error = rig.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(rig.cache.try_token().is_none());
}

#[tokio::test]
async fn p45_c2_json_is_read_with_any_content_type() {
    const JSON: &str = r#"{"access_token":"x","token_type":"Bearer"}"#;
    for (content_type, body) in [
        ("application/json;charset=UTF-8", JSON.to_owned()),
        ("application/json; charset=ISO-8859-1", JSON.to_owned()),
        ("text/html", JSON.to_owned()),
        ("text/plain", JSON.to_owned()),
        ("application/octet-stream", format!("\u{feff}{JSON}")),
        ("nonsense", format!("\r\n {JSON}\n")),
    ] {
        assert!(
            answered(Answer::bytes(200, content_type, body))
                .await
                .is_ok()
        );
    }
    // Without a content type.
    let raw = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{JSON}",
        JSON.len()
    );
    assert!(answered(Answer::raw(raw)).await.is_ok());
    // Form-encoded responses.
    for content_type in ["application/x-www-form-urlencoded", "text/plain"] {
        let form = "access_token=x&token_type=bearer&expires_in=60&scope=a+b";
        let response = answered(Answer::bytes(200, content_type, form))
            .await
            .unwrap();
        assert_eq!(response.scope(), Some("a b"));
        assert_eq!(response.expires_in(), Some(60 * SECOND));
    }
}

#[tokio::test]
async fn p45_response_size_is_limited() {
    const MAX: usize = bearer_auth::endpoint::MAX_BODY;
    let padded = |size: usize| {
        let json = r#"{"access_token":"x","token_type":"Bearer","pad":"canary"}"#;
        json.to_owned() + &" ".repeat(size - json.len())
    };
    let answer = |size| answered(Answer::bytes(200, "application/json", padded(size)));
    assert!(answer(MAX).await.is_ok());
    for size in [MAX + 1, 4 * MAX] {
        let error = answer(size).await.unwrap_err();
        assert_eq!(kind(&error, "canary"), ErrorKind::InvalidResponse);
    }
}

#[tokio::test]
async fn p46_p61_token_with_invalid_header_characters_is_an_error() {
    for wrong in [
        "a\r\nx: y",
        "a\nb",
        "a\0b",
        "é",
        "a b",
        "a\u{7f}",
        "\u{feff}",
    ] {
        let rig = rig().await;
        rig.idp.always(json_answer(
            json!({"access_token": wrong, "token_type": "Bearer"}),
        ));
        let error = rig.try_get("a").await.unwrap_err();
        let error = error.token_error().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{wrong:?}");
        assert_eq!(rig.idp.api_requests(), 0);
    }
    let rig = rig().await;
    rig.idp
        .always(json_answer(json!({"access_token": "a|b{}\"'<>\\^`"})));
    rig.get("a").await;
    assert_eq!(rig.seen()[0], "Bearer a|b{}\"'<>\\^`");
}

#[tokio::test]
async fn p46_long_token_is_sent_intact() {
    let rig = rig().await;
    rig.idp.set_token_size(16 * 1024);
    assert_eq!(rig.get("a").await.status(), 200);
    assert_eq!(rig.seen()[0].len(), "Bearer ".len() + 16 * 1024);
}

/// `tests/it/cache` tests the boundaries of refresh window and safety margin.
#[tokio::test]
async fn c6_token_expires_at_the_exact_nanosecond() {
    let rig = rig().await;
    rig.idp.set_lifetime(100 * SECOND);
    rig.cache.token().await.unwrap();
    rig.idp.always(Answer::oauth_error("invalid_client"));
    rig.clock.advance(100 * SECOND - NANO);
    assert!(rig.cache.try_token().is_some());
    rig.landed().await;
    assert!(rig.cache.status().ready);
    rig.clock.advance(NANO);
    assert!(rig.cache.try_token().is_none());
    assert!(!rig.cache.status().ready);
}

#[tokio::test]
async fn c20_unexpected_members_do_not_invalidate_the_token() {
    let rig = rig().await;
    rig.idp.always(json_answer(json!({
        "access_token": "x",
        "token_type": "Bearer",
        "expires_in": "soon",
        "scope": 42,
        "refresh_token": {},
        "id_token": 7,
        "error_description": ["none"],
        "nested": {"a": [{"b": null}]},
    })));
    let token = rig.cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "x");
    assert_eq!(token.scope(), None);
}
