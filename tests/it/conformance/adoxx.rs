//! ADONIS, ADOIT, ADOGRC (ADOxx REST), client credentials.

use bearer_auth::{
    BearerAuthLayer, ClientAuth, ClientCredentialsBuilder, ErrorKind, OAuthErrorCode, TokenCache,
    provider,
    testing::{Answer, ManualClock, MockIdp, Recorded},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer as _, ServiceExt as _};

use super::rig::*;

/// The API on the mock's port, so that requests to it are in the token log.
fn base(idp: &MockIdp) -> String {
    let url = idp.token_url();
    let origin = url.strip_suffix("/oauth2/v1/token").unwrap();
    format!("{origin}/ADOXX")
}

fn adoxx(idp: &MockIdp) -> ClientCredentialsBuilder {
    provider::adoxx(base(idp), "client", "secret").scope("myScope")
}

const SAMPLE: &str = r#"{"access_token":"c83f9ac9-5c3b-4a3b-8d5f-2f5f6a7f0b1c","token_type":"Bearer","expires_in":1799,"scope":"myScope"}"#;

fn sample() -> Answer {
    Answer::bytes(200, "application/json", SAMPLE)
}

async fn adoxx_rig() -> Rig {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    idp.always(sample());
    // The mock did not issue that token.
    idp.api_answers("/api/", Answer::status(200));
    let source = adoxx(&idp).build().unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    rig_of(clock, idp, cache)
}

async fn sent_by(configure: impl Fn(&MockIdp) -> ClientCredentialsBuilder) -> Recorded {
    let idp = MockIdp::start().await.unwrap();
    idp.always(sample());
    fetch(configure(&idp)).await.unwrap();
    only(idp.token_log())
}

#[tokio::test]
async fn s4_1_s4_16_request_carries_bearer_and_the_token() {
    let rig = adoxx_rig().await;
    for path in ["a", "b"] {
        rig.get(path).await;
    }
    assert_eq!(
        rig.seen(),
        ["Bearer c83f9ac9-5c3b-4a3b-8d5f-2f5f6a7f0b1c"; 2]
    );
}

#[tokio::test]
async fn s4_2_hundred_callers_share_one_token() {
    let rig = adoxx_rig().await;
    let hold = rig.idp.hold();
    let requests: Vec<_> = (0..100).map(|_| rig.spawn_get("a")).collect();
    rig.idp.token_requests_reach(1).await;
    hold.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (1, 100));
}

#[tokio::test]
async fn s4_3_plain_http_is_a_configuration_error() {
    let source = provider::adoxx("http://adoxx.example:8000/ADOXX", "client", "secret");
    assert_eq!(refused(source), "base");
    let idp = MockIdp::start().await.unwrap();
    let cache = TokenCache::new(adoxx(&idp).build().unwrap());
    let error = BearerAuthLayer::for_api("http://adoxx.example:8000/ADOXX/rest/", cache);
    assert_eq!(error.unwrap_err().field(), "api");
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn s4_4_s4_7_token_request_is_a_post_with_basic_credentials() {
    let request = sent_by(adoxx).await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.path(), "/ADOXX/oauth2/token");
    assert_eq!(
        request.header("authorization"),
        Some("Basic Y2xpZW50OnNlY3JldA==")
    );
}

#[tokio::test]
async fn s4_5_params_in_query_never_include_secrets() {
    let request = sent_by(adoxx).await;
    assert_eq!(request.method, "POST");
    assert_eq!(
        request.target,
        "/ADOXX/oauth2/token?grant_type=client_credentials&scope=myScope"
    );
    assert_eq!(request.header("content-length"), Some("0"));
    assert!(request.body.is_empty());

    // The parameters of the URL come first.
    let request = sent_by(|idp| {
        let url = base(idp) + "/oauth2/token?lang=de";
        let source = bearer_auth::ClientCredentials::builder(url, "client", "secret");
        source.params_in_query()
    })
    .await;
    assert_eq!(
        request.target,
        "/ADOXX/oauth2/token?lang=de&grant_type=client_credentials"
    );

    let idp = MockIdp::start().await.unwrap();
    let post = adoxx(&idp).client_auth(ClientAuth::post());
    assert_eq!(refused(post), "client_auth");
    for secret in [
        "client_secret",
        "client_assertion",
        "assertion",
        "code",
        "code_verifier",
        "refresh_token",
        "subject_token",
        "actor_token",
        "password",
        "device_code",
    ] {
        assert_eq!(refused(adoxx(&idp).param(secret, "x")), "param", "{secret}");
    }
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn s4_6_token_request_is_a_get_if_configured() {
    let request = sent_by(|idp| adoxx(idp).use_get()).await;
    assert_eq!(request.method, "GET");
    assert_eq!(
        request.target,
        "/ADOXX/oauth2/token?grant_type=client_credentials&scope=myScope"
    );
    assert!(request.body.is_empty());
    assert!(!request.headers.contains_key("content-type"));
    assert_eq!(
        request.header("authorization"),
        Some("Basic Y2xpZW50OnNlY3JldA==")
    );
}

#[tokio::test]
async fn s4_8_credentials_are_utf8() {
    let with = |auth: fn() -> ClientAuth| {
        sent_by(move |idp| provider::adoxx(base(idp), "Jürgen", "pä€+").client_auth(auth()))
    };
    assert_eq!(
        credentials(&with(ClientAuth::basic_raw).await),
        "Jürgen:pä€+"
    );
    assert_eq!(
        credentials(&with(ClientAuth::basic).await),
        "J%C3%BCrgen:p%C3%A4%E2%82%AC%2B"
    );
}

#[tokio::test]
async fn s4_9_port_and_context_path_of_the_base_url_are_kept() {
    for slash in ["", "/"] {
        let idp = MockIdp::start().await.unwrap();
        idp.always(sample());
        let base = base(&idp) + slash;
        fetch(provider::adoxx(base, "client", "secret"))
            .await
            .unwrap();
        let request = only(idp.token_log());
        assert_eq!(request.path(), "/ADOXX/oauth2/token");
        let authority = idp.token_url()["http://".len()..]
            .split('/')
            .next()
            .map(str::to_owned);
        assert_eq!(request.header("host").map(str::to_owned), authority);
    }
}

#[tokio::test]
async fn s4_11_sample_response_with_an_opaque_token_is_accepted() {
    let rig = adoxx_rig().await;
    let token = rig.cache.token().await.unwrap();
    assert_eq!(
        token.expose_secret(),
        "c83f9ac9-5c3b-4a3b-8d5f-2f5f6a7f0b1c"
    );
    assert_eq!(token.scope(), Some("myScope"));
    let end = rig.clock.system_time() + 1799 * SECOND;
    assert_eq!(token.expires_at(), Some(end));
}

/// `tests/it/cache` tests the schedule in detail.
#[tokio::test]
async fn s4_12_c23_same_token_again_keeps_its_remaining_lifetime() {
    let rig = rig().await;
    rig.idp.set_lifetime(1800 * SECOND);
    rig.idp.repeat_token(true);
    rig.cache.token().await.unwrap();
    let end = rig.clock.system_time() + 1800 * SECOND;
    rig.clock.advance(1795 * SECOND);
    // In the safety margin the refresh is awaited. It returns the same token with `expires_in: 5`.
    let token = rig.cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "token-1");
    assert_eq!(token.expires_at(), Some(end));
    assert_eq!(rig.idp.token_requests(), 2);
    for _ in 0..100 {
        assert_eq!(rig.get("a").await.status(), 200);
    }
    assert_eq!(
        rig.idp.token_requests(),
        2,
        "not one token request per request"
    );
    rig.clock.advance(5 * SECOND);
    assert_eq!(rig.get("a").await.status(), 200);
    assert_eq!(rig.idp.issued(), ["token-1", "token-2"]);
    assert_eq!(rig.idp.api_unauthorized(), 0);
}

#[tokio::test]
async fn s4_13_errors_in_response_headers_are_read() {
    let with_headers = |answer: Answer| {
        answer
            .header("error", "invalid_grant")
            .header("error_description", "the grant has expired")
    };
    for (status, answer) in [
        (400, Answer::status(400)),
        (401, Answer::status(401)),
        (500, Answer::status(500)),
        // Also with a success status, if there is no token.
        (200, Answer::status(200)),
        (200, Answer::bytes(200, "text/html", "<html>")),
        (
            200,
            Answer::json(200, serde_json::json!({"scope": "myScope"})),
        ),
    ] {
        let error = answered(with_headers(answer)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OAuth);
        assert_eq!(error.status().unwrap().as_u16(), status);
        let oauth = error.oauth_error().unwrap();
        assert_eq!(oauth.code(), &OAuthErrorCode::InvalidGrant);
        assert_eq!(oauth.description(), Some("the grant has expired"));
        assert!(!error.to_string().contains("expired"));
    }
    // An OAuth error in the body takes precedence.
    let body = Answer::oauth_error("invalid_scope");
    let error = answered(with_headers(body)).await.unwrap_err();
    assert_eq!(
        error.oauth_error().unwrap().code(),
        &OAuthErrorCode::InvalidScope
    );
    // A token takes precedence, too.
    assert!(answered(with_headers(sample())).await.is_ok());
}

#[tokio::test]
async fn s4_14_error_codes_in_headers_are_typed() {
    for (code, expected) in [
        ("invalid_request", OAuthErrorCode::InvalidRequest),
        ("invalid_grant", OAuthErrorCode::InvalidGrant),
        (
            "scope_invalid",
            OAuthErrorCode::Other("scope_invalid".into()),
        ),
        ("no code at all", OAuthErrorCode::Malformed),
    ] {
        let answer = Answer::status(400).header("error", code);
        let error = answered(answer).await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), &expected);
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn s4_15_other_token_type_is_an_error_unless_it_is_an_alias() {
    let rig = adoxx_rig().await;
    let typed = |token_type: &str| {
        Answer::json(
            200,
            serde_json::json!({"access_token": "x", "token_type": token_type, "expires_in": 60}),
        )
    };
    rig.idp.then(typed("bearer"));
    rig.get("a").await;
    assert_eq!(rig.seen(), ["Bearer x"]);

    let error = answered(typed("mac")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedTokenType);

    // Unless the caller configures the type as an alias of Bearer.
    let idp = MockIdp::start().await.unwrap();
    idp.always(typed("AdoxxToken"));
    let source = client(&idp).bearer_alias("adoxxtoken").build().unwrap();
    let token = TokenCache::new(source).token().await.unwrap();
    assert_eq!(token.header_value(), "Bearer x");
}

#[tokio::test]
async fn s4_17_token_is_sent_to_the_api_and_not_to_the_token_endpoint() {
    let rig = rig().await;
    let origin = rig.idp.api_url().replace("/api/", "");
    let auth =
        BearerAuthLayer::for_api(format!("{origin}/ADOXX/rest/"), rig.cache.clone()).unwrap();
    let api = auth.layer(http());
    for path in [
        "/ADOXX/rest/myEndpoint",
        "/ADOXX/oauth2/token",
        "/ADOXX/restful",
        "/ADOXX/rest/../oauth2/token",
    ] {
        let request = Request::get(format!("{origin}{path}"));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        api.clone().oneshot(request).await.unwrap();
    }
    let seen: Vec<_> = rig
        .idp
        .api_log()
        .iter()
        .map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(seen, [Some("Bearer token-1".to_owned()), None, None, None]);
}

#[tokio::test]
async fn s4_18_server_restart_costs_one_token_request() {
    let rig = rig().await;
    rig.get("a").await;
    rig.idp.revoke_all();
    let response = rig.get("b").await;
    assert_eq!(response.status(), 200);
    assert_eq!(rig.idp.token_requests(), 2);
    assert_eq!(rig.idp.api_requests(), 3);
}
