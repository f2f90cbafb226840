//! MediationZone / Usage Engine CE, client credentials.

use bearer_auth::{
    BearerAuthLayer, ClientAuth, ClientCredentials, ClientCredentialsBuilder, Error, ErrorKind,
    OAuthErrorCode, TokenCache, provider,
    testing::{Answer, ManualClock, MockIdp},
};
use tower::Layer as _;

use super::rig::*;

fn usage_engine(idp: &MockIdp) -> ClientCredentialsBuilder {
    provider::usage_engine(idp.token_url(), "client-id", "client-secret").audience(idp.api_url())
}

async fn usage_rig() -> Rig {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    let source = usage_engine(&idp).build().unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    rig_of(clock, idp, cache)
}

#[tokio::test]
async fn s3_1_every_request_carries_the_token() {
    let rig = usage_rig().await;
    for path in ["a", "b", "c/d?e=f"] {
        assert_eq!(rig.get(path).await.status(), 200);
    }
    assert_eq!(rig.seen(), ["Bearer token-1"; 3]);
    assert_eq!(rig.idp.token_requests(), 1);
}

#[tokio::test]
async fn s3_2_p21_refresh_uses_the_client_credentials() {
    let rig = usage_rig().await;
    // An unexpected refresh token is ignored.
    rig.idp.then(Answer::json(
        200,
        serde_json::json!({
            "access_token": "first", "token_type": "Bearer", "expires_in": 60,
            "refresh_token": "r-canary",
        }),
    ));
    rig.cache.token().await.unwrap();
    rig.clock.advance(60 * SECOND);
    rig.cache.token().await.unwrap();
    let log = rig.idp.token_log();
    assert_eq!(log.len(), 2);
    for request in log {
        assert!(body(&request).starts_with("grant_type=client_credentials&"));
        assert!(!body(&request).contains("refresh_token"));
        assert!(!body(&request).contains("r-canary"));
        assert_eq!(credentials(&request), "client-id:client-secret");
    }
}

#[tokio::test]
async fn s3_3_lifetime_is_expires_in() {
    let rig = usage_rig().await;
    rig.idp.set_lifetime(60 * SECOND);
    rig.cache.token().await.unwrap();
    rig.clock.advance(44 * SECOND); // the refresh window begins between 45 and 49 s
    assert_eq!(rig.get("").await.status(), 200);
    assert_eq!(rig.idp.token_requests(), 1);
    rig.clock.advance(16 * SECOND);
    assert_eq!(rig.get("").await.status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);
    assert_eq!(rig.seen(), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn s3_4_client_authenticates_with_basic_or_post() {
    let idp = MockIdp::start().await.unwrap();
    fetch(usage_engine(&idp)).await.unwrap();
    fetch(usage_engine(&idp).client_auth(ClientAuth::post()))
        .await
        .unwrap();
    let [basic, post] = <[_; 2]>::try_from(idp.token_log()).unwrap();
    assert_eq!(credentials(&basic), "client-id:client-secret");
    assert!(!body(&basic).contains("client_id"));
    assert!(!body(&basic).contains("client_secret"));
    assert!(!post.headers.contains_key("authorization"));
    assert!(body(&post).ends_with("&client_id=client-id&client_secret=client-secret"));
}

#[tokio::test]
async fn s3_5_audience_is_required_and_sent() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.token_url();
    let at = |audience: &str| {
        provider::usage_engine(&url, "client-id", "client-secret").audience(audience)
    };
    fetch(at("https://usage.example/api/")).await.unwrap();
    assert_eq!(
        body(&only(idp.token_log())),
        "grant_type=client_credentials&audience=https%3A%2F%2Fusage.example%2Fapi%2F"
    );
    assert_eq!(refused(at("")), "audience");
}

#[tokio::test]
async fn s3_6_audience_is_sent_verbatim() {
    let idp = MockIdp::start().await.unwrap();
    let mut tokens = Vec::new();
    for audience in [
        "https://a.example/api",
        "https://a.example/api/",
        "https://B.example",
    ] {
        let source = provider::usage_engine(idp.token_url(), "client-id", "client-secret")
            .audience(audience);
        let cache = TokenCache::new(source.build().unwrap());
        tokens.push(cache.token().await.unwrap().expose_secret().to_owned());
        let sent = idp.token_log().pop().unwrap().form();
        assert!(sent.contains(&("audience".into(), audience.into())));
    }
    assert_eq!(tokens, ["token-1", "token-2", "token-3"]);
}

#[tokio::test]
async fn s3_7_unknown_client_is_a_permanent_error() {
    for (code, expected) in [
        ("invalid_client", OAuthErrorCode::InvalidClient),
        ("access_denied", OAuthErrorCode::AccessDenied),
        ("unauthorized_client", OAuthErrorCode::UnauthorizedClient),
    ] {
        let rig = usage_rig().await;
        rig.idp.always(Answer::oauth_error(code));
        for _ in 0..3 {
            let error = rig.cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OAuth);
            assert_eq!(error.oauth_error().unwrap().code(), &expected);
            assert!(!error.is_retryable());
        }
        assert_eq!(rig.idp.token_requests(), 1);
    }
}

#[tokio::test]
async fn s3_8_token_rejected_before_expiry_is_replaced_once() {
    let rig = usage_rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    assert_eq!(rig.get("b").await.status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);
    assert_eq!(
        rig.seen(),
        ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    );
}

#[tokio::test]
async fn s3_9_p55_c21_secrets_are_neither_printed_nor_in_a_url() {
    const SECRET: &str = "s3cr3t-canary";
    let builder = MockIdp::builder().client("client-id", SECRET);
    let idp = builder.start().await.unwrap();
    idp.always(token("t0k3n-canary"));
    // An owned string, as from the environment or a file.
    let secret: String = SECRET.to_owned();
    let source = provider::usage_engine(idp.token_url(), "client-id", secret)
        .audience(idp.api_url())
        .param("pin", "p1n-canary")
        .header("x-key", "k3y-canary");
    let mut shown = format!("{source:?}");
    // Including values that `build` rejects.
    let url = "https://user:canary@idp.example/token?key=canary";
    shown += &format!("{:?}", ClientCredentials::builder(url, "client-id", SECRET));
    let source = source.build().unwrap();
    shown += &format!("{source:?}");
    let cache = TokenCache::new(source);
    let auth = BearerAuthLayer::for_api(idp.api_url(), cache.clone()).unwrap();
    let token = cache.token().await.unwrap();
    assert!(token.header_value().is_sensitive());
    let response = fetch(usage_engine(&idp)).await.unwrap();
    shown += &format!("{cache:?}{auth:?}{token:?}{response:?}{:?}", cache.status());
    let api = auth.layer(http());
    shown += &format!("{api:?}{:?}", token.header_value());

    idp.always(Answer::json(
        400,
        serde_json::json!({"error": "invalid_client", "error_description": "not t0k3n-canary"}),
    ));
    let error: Error = cache.refresh().await.unwrap_err();
    shown += &format!("{error}{error:?}{:?}", cache.status());
    assert!(!shown.contains("canary"), "{shown}");
    for request in idp.token_log() {
        assert!(!request.target.contains("canary"));
    }

    // The API never gets the client secret.
    let rig = usage_rig().await;
    rig.get("a").await;
    let request = only(rig.idp.api_log());
    let headers = format!("{:?}", request.headers);
    assert!(!headers.contains("client-secret") && !request.target.contains("secret"));
    assert!(request.body.is_empty());
}

#[tokio::test]
async fn s3_10_response_with_any_case_of_bearer_is_accepted() {
    for token_type in ["Bearer", "bearer", "BEARER", "beAREr"] {
        let rig = usage_rig().await;
        rig.idp.always(Answer::json(
            200,
            serde_json::json!({
                "access_token": "x", "scope": "all", "expires_in": 3600, "token_type": token_type,
            }),
        ));
        let token = rig.cache.token().await.unwrap();
        assert_eq!(token.header_value(), "Bearer x");
        assert_eq!(token.scope(), Some("all"));
    }
}
