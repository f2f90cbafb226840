//! The JWT bearer grant (RFC 7523 §2.1).

use std::time::Duration;

use bearer_auth::{
    ClientAuth, ConfigError, Error, Issuer, JwtBearer, JwtBearerBuilder, OAuthErrorCode,
    TokenCache, TokenRequest, TokenResponse, TokenSource as _,
    endpoint::{HttpClient, HttpError, TowerClient},
    testing::{Answer, ManualClock, MockIdp, Recorded},
};
use bytes::Bytes;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    assertions::{accepted, parameter, signing_key},
    rig::*,
};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

async fn idp() -> MockIdp {
    let idp = MockIdp::builder().client("public", "").allow_grant(GRANT);
    let idp = idp.client("client-id", "client-secret");
    idp.start().await.unwrap()
}

fn at(idp: &MockIdp) -> (KeyPair, JwtBearerBuilder) {
    let (pair, key) = signing_key();
    let source = JwtBearer::builder(idp.token_url(), key).issuer("us");
    (pair, source)
}

async fn fetch(source: JwtBearerBuilder) -> Result<TokenResponse, Error> {
    source.build().unwrap().fetch(TokenRequest::new()).await
}

/// Returns the claims of the grant's assertion in a request.
#[track_caller]
fn claims(request: &Recorded, key: &KeyPair, audience: &str) -> Value {
    accepted(&parameter(request, "assertion"), key, audience).claims
}

fn names(request: &Recorded) -> Vec<String> {
    let form = request.form().into_iter();
    form.map(|(name, _)| name).collect()
}

#[tokio::test]
async fn p126_assertion_is_the_grant_and_the_client_id_is_optional() {
    let idp = idp().await;
    let (key, source) = at(&idp);
    let source = source.scope("orders:read").scope("orders:write");
    let source = source.param("resource", "https://api.example/");
    let response = fetch(source).await.unwrap();
    assert_eq!(response.scope(), Some("orders:read orders:write"));
    let request = only(idp.token_log());
    assert_eq!(request.method, "POST");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(request.header("content-type"), Some(form));
    assert_eq!(request.header("authorization"), None);
    let sent = ["grant_type", "assertion", "scope", "resource"];
    assert_eq!(names(&request), sent);
    assert_eq!(parameter(&request, "grant_type"), GRANT);
    assert_eq!(parameter(&request, "scope"), "orders:read orders:write");
    claims(&request, &key, &idp.token_url());
    assert!(body(&request).starts_with(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ"
    ));
    // Without a scope, the parameter is absent.
    fetch(at(&idp).1).await.unwrap();
    assert_eq!(names(&idp.token_log()[1]), ["grant_type", "assertion"]);
}

#[tokio::test]
async fn p126_configured_client_authenticates_in_addition_to_the_grant() {
    let idp = idp().await;
    let with = |id: &str, secret: &str| at(&idp).1.client(id, secret);
    fetch(with("client-id", "client-secret")).await.unwrap();
    let post = with("client-id", "client-secret").client_auth(ClientAuth::post());
    fetch(post).await.unwrap();
    fetch(with("public", "")).await.unwrap();
    let [basic, post, none] = <[Recorded; 3]>::try_from(idp.token_log()).unwrap();
    assert_eq!(credentials(&basic), "client-id:client-secret");
    assert_eq!(names(&basic), ["grant_type", "assertion"]);
    let sent = ["grant_type", "assertion", "client_id", "client_secret"];
    assert_eq!(names(&post), sent);
    assert_eq!(post.header("authorization"), None);
    assert_eq!(names(&none), ["grant_type", "assertion", "client_id"]);
    assert_eq!(none.header("authorization"), None);
    // The grant and the client authentication each have an assertion.
    let (key, ours) = signing_key();
    idp.always(token("t"));
    let both = with("app", "").client_auth(ClientAuth::private_key_jwt(ours));
    fetch(both).await.unwrap();
    let both = idp.token_log().pop().unwrap();
    let own = parameter(&both, "client_assertion");
    assert_eq!(accepted(&own, &key, &idp.token_url()).claims["sub"], "app");
    assert_ne!(own, parameter(&both, "assertion"));
}

#[tokio::test]
async fn p127_expired_token_is_replaced_with_a_new_assertion() {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone()).allow_grant(GRANT);
    let idp = builder.start().await.unwrap();
    let (key, source) = at(&idp);
    let source = source.lifetime(Duration::from_secs(3600)).build().unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    let rig = rig_of(clock, idp, cache);
    // Neither the refresh token nor the first assertion, which is still valid, is used.
    let tokens = json!({"access_token": "t", "expires_in": 600, "refresh_token": "canary"});
    rig.idp.then(Answer::json(200, tokens));
    rig.pass_pauses(rig.spawn_token()).await.unwrap();
    rig.clock.advance(Duration::from_secs(600));
    rig.idp.then(Answer::json(503, json!({})));
    rig.pass_pauses(rig.spawn_token()).await.unwrap();
    assert_eq!(rig.get("a").await.status(), 200);
    let log = rig.idp.token_log();
    let url = rig.idp.token_url();
    let [first, failed, second] = &log[..] else {
        panic!("{} requests", log.len());
    };
    let [first, failed, second] = [first, failed, second].map(|request| {
        assert_eq!(names(request), ["grant_type", "assertion"]);
        claims(request, &key, &url)
    });
    // The assertions use the system's clock, not the manual one.
    for pair in [[&first, &failed], [&failed, &second]] {
        assert_ne!(pair[0]["jti"], pair[1]["jti"]);
        assert!(pair[0]["iat"].as_u64() <= pair[1]["iat"].as_u64());
    }
}

#[tokio::test]
async fn p133_grant_assertion_type_is_jwt_unless_configured() {
    let idp = idp().await;
    let source = || at(&idp).1;
    let own = "authorization-grant+jwt";
    for (source, expected) in [
        (source(), Some("JWT")),
        (source().assertion_type(own), Some(own)),
        (source().assertion_type(""), None),
    ] {
        fetch(source).await.unwrap();
        let request = idp.token_log().pop().unwrap();
        let header = jsonwebtoken::decode_header(parameter(&request, "assertion")).unwrap();
        assert_eq!(header.typ.as_deref(), expected);
    }
}

#[tokio::test]
async fn p134_grant_assertion_is_valid_for_a_minute_and_at_most_an_hour() {
    let idp = idp().await;
    for (lifetime, seconds) in [(None, 60), (Some(1), 1), (Some(3600), 3600)] {
        let (key, mut source) = at(&idp);
        if let Some(lifetime) = lifetime {
            source = source.lifetime(Duration::from_secs(lifetime));
        }
        fetch(source).await.unwrap();
        let request = idp.token_log().pop().unwrap();
        let claims = claims(&request, &key, &idp.token_url());
        let time = |name: &str| claims[name].as_u64().unwrap();
        assert_eq!(time("exp") - time("iat"), seconds);
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22, "128 bits");
    }
    for lifetime in [Duration::ZERO, Duration::from_millis(3_600_001)] {
        assert_eq!(refused(at(&idp).1.lifetime(lifetime)), "lifetime");
    }
}

#[tokio::test]
async fn p137_grant_assertion_has_the_configured_claims() {
    let idp = idp().await;
    let (key, source) = at(&idp);
    let source = source
        .subject("ada@example.com")
        .audience("https://login.example")
        .claim("box_sub_type", "user")
        .claim("https://ims.example/s/sdk", true)
        .claim("nested", json!({"list": [1, 2.5, null]}));
    fetch(source).await.unwrap();
    let mut claims = claims(&only(idp.token_log()), &key, "https://login.example");
    for own in ["jti", "iat", "exp"] {
        assert!(claims.as_object_mut().unwrap().remove(own).is_some());
    }
    let expected = json!({
        "iss": "us", "sub": "ada@example.com", "aud": "https://login.example",
        "box_sub_type": "user", "https://ims.example/s/sdk": true,
        "nested": {"list": [1, 2.5, null]},
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn p137_grant_audience_is_the_issuer_if_known() {
    let idp = MockIdp::builder().issuer_path("/t1").allow_grant(GRANT);
    let idp = idp.start().await.unwrap();
    let issuer = || Issuer::new(idp.issuer());
    let endpoint = issuer().assertions_to_endpoint();
    for (issuer, audience) in [(issuer(), idp.issuer()), (endpoint, idp.token_url())] {
        let (pair, key) = signing_key();
        fetch(JwtBearer::discover(issuer, key).issuer("us"))
            .await
            .unwrap();
        claims(&idp.token_log().pop().unwrap(), &pair, &audience);
    }
}

#[tokio::test]
async fn p138_rejected_grant_assertion_is_a_permanent_error() {
    let clock = ManualClock::new();
    let idp = MockIdp::builder().clock(clock.clone()).start();
    let idp = idp.await.unwrap();
    idp.always(Answer::json(400, json!({"error": "invalid_grant"})));
    let (_, source) = at(&idp);
    let cache = TokenCache::builder(source.build().unwrap()).clock(clock.clone());
    let rig = rig_of(clock, idp, cache.build());
    for _ in 0..10 {
        let error = rig.try_get("a").await.unwrap_err();
        let error = error.token_error().unwrap();
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &OAuthErrorCode::InvalidGrant);
        assert!(!error.is_retryable());
        for hint in ["the assertion", "`aud`", "`exp`", "clock"] {
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
    assert_eq!(rig.idp.token_requests(), 1);
    // Much later, a new assertion is accepted.
    rig.idp.always(token("t"));
    rig.clock.advance(Duration::from_secs(300));
    rig.pass_pauses(rig.spawn_token()).await.unwrap();
    let log = rig.idp.token_log();
    assert_ne!(
        parameter(&log[0], "assertion"),
        parameter(&log[1], "assertion")
    );
}

/// Redirects requests for Google to the mock.
struct Google {
    mock: String,
    http: TowerClient<Http>,
}

const GOOGLE: &str = "https://oauth2.googleapis.com/token";

impl HttpClient for Google {
    async fn send(
        &self,
        mut request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        assert_eq!(request.uri(), GOOGLE);
        *request.uri_mut() = self.mock.parse().unwrap();
        self.http.send(request).await
    }
}

#[tokio::test]
async fn p137_q23_google_service_account_gets_a_token() {
    let idp = idp().await;
    let google = || Google {
        mock: idp.token_url(),
        http: TowerClient::new(http()),
    };
    let (pair, key) = signing_key();
    let account = "robot@project.iam.gserviceaccount.com";
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    let source = JwtBearer::builder(GOOGLE, key)
        .http_client(google())
        .issuer(account)
        .claim("scope", scope);
    fetch(source).await.unwrap();
    let request = only(idp.token_log());
    assert_eq!(names(&request), ["grant_type", "assertion"]);
    let claims = claims(&request, &pair, GOOGLE);
    assert_eq!(claims["iss"], account);
    assert_eq!(claims["scope"], scope);
    assert_eq!(claims.get("sub"), None);
    // For a user of the domain, with the longest lifetime that Google accepts.
    let (pair, key) = signing_key();
    let source = JwtBearer::builder(GOOGLE, key)
        .http_client(google())
        .issuer(account)
        .subject("ada@example.com")
        .claim("scope", scope)
        .lifetime(Duration::from_secs(3600));
    fetch(source).await.unwrap();
    let request = idp.token_log().pop().unwrap();
    let claims = self::claims(&request, &pair, GOOGLE);
    assert_eq!(claims["sub"], "ada@example.com");
}

#[track_caller]
fn refused(source: JwtBearerBuilder) -> &'static str {
    let error: ConfigError = source.build().unwrap_err();
    error.field()
}

#[test]
fn p4_p15_p137_invalid_settings_are_configuration_errors() {
    let at = |url: &str| JwtBearer::builder(url, signing_key().1);
    let source = || at("https://as.example/token").issuer("us");
    assert!(source().build().is_ok());
    assert_eq!(refused(at("https://as.example/token")), "issuer");
    assert_eq!(refused(source().subject("")), "subject");
    assert_eq!(refused(source().audience("")), "audience");
    for own in ["aud", "exp", "iat", "iss", "jti", "nbf", "sub", ""] {
        assert_eq!(refused(source().claim(own, "x")), "claim", "{own}");
    }
    let twice = source().claim("a", "x").claim("a", 1);
    assert_eq!(refused(twice), "claim");
    assert!(source().claim("a", "x").claim("A", 1).build().is_ok());
    assert_eq!(refused(source().scope("a\"b")), "scope");
    for own in ["grant_type", "assertion", "scope", "client_id"] {
        assert_eq!(refused(source().param(own, "x")), "param", "{own}");
    }
    for own in ["grant_type", "assertion", "client_id"] {
        let in_url = format!("https://as.example/token?{own}=x");
        assert_eq!(refused(at(&in_url).issuer("us")), "token_url");
    }
    // Client authentication requires an id, and only one method.
    let basic = ClientAuth::basic;
    assert_eq!(refused(source().client_auth(basic())), "client_id");
    assert_eq!(refused(source().client("", "secret")), "client_id");
    let two = source().client("app", "secret").client_auth(basic());
    assert_eq!(refused(two.client_auth(ClientAuth::post())), "client_auth");
    let key = signing_key().1.key_id("");
    let unnamed = JwtBearer::builder("https://as.example/token", key).issuer("us");
    assert_eq!(refused(unnamed), "signing_key");
}

#[tokio::test]
async fn p55_jwt_bearer_shows_no_secret() {
    let idp = idp().await;
    idp.always(Answer::json(400, json!({"error": "invalid_grant"})));
    let source = || {
        let source = at(&idp).1.client("app", "canary");
        source
            .subject("canary")
            .claim("who", "canary")
            .param("x", "canary")
    };
    let built = source().build().unwrap();
    let shown = format!("{:?} {built:?} {built:#?}", source());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("us") && shown.contains("app"), "{shown}");
    let error = built.fetch(TokenRequest::new()).await.unwrap_err();
    let request = only(idp.token_log());
    kind(&error, &parameter(&request, "assertion"));
    kind(&error, "canary");
    assert!(!format!("{request:?}").contains("eyJ"));
}
