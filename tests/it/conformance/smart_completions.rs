//! Hexagon Smart Completions 5.3.19, client credentials.

use bearer_auth::{
    ClientAuth, ClientCredentialsBuilder, TokenCache,
    endpoint::TowerClient,
    provider,
    testing::{Answer, Dialect, ManualClock, MockIdp},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::rig::*;

fn base(idp: &MockIdp) -> String {
    let url = idp.token_url();
    url.strip_suffix("/v1/token").unwrap().to_owned()
}

fn smart_completions(idp: &MockIdp) -> ClientCredentialsBuilder {
    provider::smart_completions(base(idp), "client-id", "client-secret")
}

async fn smart_rig() -> Rig {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    let source = smart_completions(&idp).build().unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    rig_of(clock, idp, cache)
}

#[tokio::test]
async fn s0_1_s0_8_s0_9_client_credentials_grant_is_a_form_in_the_body() {
    let idp = MockIdp::start().await.unwrap();
    let cache = TokenCache::new(smart_completions(&idp).build().unwrap());
    assert_eq!(cache.token().await.unwrap().expose_secret(), "token-1");
    let request = only(idp.token_log());
    assert_eq!(request.method, "POST");
    assert_eq!(
        body(&request),
        "grant_type=client_credentials&scope=ingr.api"
    );
    assert_eq!(request.headers["content-length"], "44");
}

#[test]
fn s0_2_missing_id_or_secret_is_a_configuration_error() {
    let with = |id: &str, secret: &str| {
        refused(provider::smart_completions("https://h/oauth2", id, secret))
    };
    assert_eq!(with("", "secret"), "client_id");
    assert_eq!(with("id", ""), "client_secret");
}

#[tokio::test]
async fn s0_3_token_url_is_joined_to_the_base_or_configured_in_full() {
    for slash in ["", "/"] {
        let idp = MockIdp::start().await.unwrap();
        let base = base(&idp) + slash;
        let source = provider::smart_completions(base, "client-id", "client-secret");
        fetch(source).await.unwrap();
        assert_eq!(only(idp.token_log()).target, "/oauth2/v1/token");
    }
    let in_full = sent(|source| source).await;
    assert_eq!(in_full.target, "/oauth2/v1/token");
}

/// HTTP/2 has lower-case header names only.
#[tokio::test]
async fn s0_4_header_name_is_lower_case_in_http2() {
    let idp = MockIdp::start().await.unwrap();
    let http2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    fetch(smart_completions(&idp).http_client(TowerClient::new(http2)))
        .await
        .unwrap();
    fetch(smart_completions(&idp)).await.unwrap();
    let log = idp.token_log();
    assert_eq!(log[0].version, http::Version::HTTP_2);
    assert_eq!(log[1].version, http::Version::HTTP_11);
    for request in log {
        assert_eq!(credentials(&request), "client-id:client-secret");
    }
}

#[tokio::test]
async fn s0_5_basic_scheme_can_be_spelled_differently() {
    let idp = MockIdp::start().await.unwrap();
    fetch(smart_completions(&idp)).await.unwrap();
    let lower = ClientAuth::basic().scheme("basic");
    fetch(smart_completions(&idp).client_auth(lower))
        .await
        .unwrap();
    let schemes: Vec<_> = idp
        .token_log()
        .iter()
        .map(|request| request.header("authorization").unwrap()[..6].to_owned())
        .collect();
    assert_eq!(schemes, ["Basic ", "basic "]);
}

#[tokio::test]
async fn s0_6_credentials_are_form_encoded_unless_raw() {
    for (dialect, auth, expected) in [
        (Dialect::Standard, ClientAuth::basic(), "client-id:p%2Bq"),
        (Dialect::Terse, ClientAuth::basic_raw(), "client-id:p+q"),
    ] {
        let builder = MockIdp::builder().client("client-id", "p+q");
        let idp = builder.dialect(dialect).start().await.unwrap();
        let source = provider::smart_completions(base(&idp), "client-id", "p+q");
        fetch(source.client_auth(auth)).await.unwrap();
        assert_eq!(credentials(&only(idp.token_log())), expected);
    }
}

#[tokio::test]
async fn s0_7_content_type_is_always_sent() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let idp = MockIdp::start().await.unwrap();
    fetch(smart_completions(&idp)).await.unwrap();
    fetch(smart_completions(&idp).header("content_type", FORM))
        .await
        .unwrap();
    let log = idp.token_log();
    assert_eq!(log[0].header("content-type"), Some(FORM));
    assert!(!log[0].headers.contains_key("content_type"));
    assert_eq!(log[1].header("content-type"), Some(FORM));
    assert_eq!(log[1].header("content_type"), Some(FORM));

    // The real header cannot be replaced.
    let source = smart_completions(&idp).header("Content-Type", "text/plain");
    assert_eq!(refused(source), "header");
}

#[test]
fn s0_10_plain_http_is_a_configuration_error() {
    let source = provider::smart_completions("http://sc.example/oauth2", "id", "secret");
    assert_eq!(refused(source), "base");
}

#[tokio::test]
async fn s0_11_s0_12_sample_response_is_accepted_without_a_refresh_token() {
    // In the manual's order of members, and in another.
    for sample in [
        r#"{"token_type":"Bearer","expires_in":3600,"access_token":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln","scope":"ingr.api"}"#,
        r#"{"scope":"ingr.api","access_token":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln","expires_in":3600,"token_type":"Bearer"}"#,
    ] {
        let rig = smart_rig().await;
        rig.idp
            .always(Answer::bytes(200, "application/json", sample));
        let token = rig.cache.token().await.unwrap();
        assert_eq!(
            token.expose_secret(),
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
        );
        assert_eq!(token.scope(), Some("ingr.api"));
        let end = rig.clock.system_time() + 3600 * SECOND;
        assert_eq!(token.expires_at(), Some(end));

        let response = fetch(smart_completions(&rig.idp)).await.unwrap();
        assert!(response.refresh_token().is_none());
    }
}

#[tokio::test]
async fn s0_13_request_carries_bearer_and_the_token() {
    let rig = smart_rig().await;
    assert_eq!(rig.get("documents").await.status(), 200);
    assert_eq!(rig.seen(), ["Bearer token-1"]);
}

#[tokio::test]
async fn s0_14_token_is_refreshed_ahead_of_expiry() {
    let rig = smart_rig().await;
    rig.get("a").await;
    // In the refresh window the token still serves, while the refresh is in flight.
    rig.clock.advance(3500 * SECOND);
    assert_eq!(rig.get("b").await.status(), 200);
    rig.idp.token_requests_reach(2).await;
    rig.landed().await;
    rig.clock.advance(100 * SECOND);
    assert_eq!(rig.get("c").await.status(), 200);
    // Without a request in the refresh window:
    rig.clock.advance(3600 * SECOND);
    assert_eq!(rig.get("d").await.status(), 200);

    let seen = rig.seen();
    assert_eq!(seen[..2], ["Bearer token-1", "Bearer token-1"]);
    assert_eq!(seen[2..], ["Bearer token-2", "Bearer token-3"]);
    assert_eq!(rig.idp.api_unauthorized(), 0);
    for request in rig.idp.token_log() {
        assert_eq!(
            body(&request),
            "grant_type=client_credentials&scope=ingr.api"
        );
        assert_eq!(credentials(&request), "client-id:client-secret");
    }
}
