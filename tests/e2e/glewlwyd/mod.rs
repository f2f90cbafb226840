//! Tests against the authorization server glewlwyd, written in C. It deviates from the RFCs in client
//! authentication and in errors.
//!
//! Needs Debian's package `glewlwyd`. Without it, the tests are ignored.

use std::{fs, path::Path, time::Duration};

use bearer_auth::{
    AccessToken, AuthorizationCode, BearerAuthLayer, ClientAuth, ClientCredentials, Error,
    ErrorKind, OAuthErrorCode, TokenCache, store::FileStore, testing::ManualClock,
};
use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Client;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};

use crate::{
    harness::tests,
    programs::glewlwyd::{Glewlwyd, KEY},
};

tests! {
    needs: [Glewlwyd];
    client_authenticates_by_basic_raw_basic_and_post,
    p13_raw_basic_works_where_the_server_skips_form_decoding,
    wrong_secret_or_scope_is_a_permanent_error_after_one_request,
    user_signs_in_with_pkce_and_refresh_tokens_rotate,
}

/// The lifetime of an access token, which expires on the test's clock only.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Characters that form encoding changes.
const SPECIAL: &str = "p+q/%5 ü";

fn methods() -> [(&'static str, ClientAuth); 3] {
    [
        ("basic", ClientAuth::basic()),
        ("basic_raw", ClientAuth::basic_raw()),
        ("post", ClientAuth::post()),
    ]
}

async fn token(
    idp: &Glewlwyd,
    [id, secret, scope]: [&str; 3],
    auth: ClientAuth,
) -> Result<AccessToken, Error> {
    let source = ClientCredentials::builder(idp.url("token"), id, secret)
        .client_auth(auth)
        .scope(scope)
        .build()
        .unwrap();
    TokenCache::new(source).token().await
}

/// A public client that signs a user in.
fn client(idp: &Glewlwyd, path: &Path) -> AuthorizationCode {
    AuthorizationCode::builder(idp.url("auth"), idp.url("token"), "program")
        .redirect_uri("http://127.0.0.1/callback")
        .issuer_always_sent(idp.issuer())
        .scope("orders")
        .store(FileStore::new(path))
        .build()
        .unwrap()
}

/// The verified claims of an access token.
fn claims(idp: &Glewlwyd, token: &AccessToken) -> Value {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[idp.issuer()]);
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(KEY.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token.expose_secret(), &key, &validation);
    claims.unwrap().claims
}

/// The introspection response (RFC 7662) for a token. The endpoint requires an access token itself,
/// which the layer sends.
async fn introspect(idp: &Glewlwyd, token: &str) -> Value {
    let source = ClientCredentials::builder(idp.url("token"), "api", "api-secret")
        .scope("introspect")
        .build()
        .unwrap();
    let url = idp.url("introspect");
    let auth = BearerAuthLayer::for_api(&url, source).unwrap();
    let client = auth.layer(Client::builder().no_proxy().build().unwrap());
    let request = client.get_ref().post(url);
    let request = request.form(&[("token", token)]).build().unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn client_authenticates_by_basic_raw_basic_and_post() {
    let idp = Glewlwyd::start("127.75.0.1").await;
    idp.add_service("plain", "plain-secret", "orders").await;
    idp.add_service("api", "api-secret", "introspect").await;
    for (name, auth) in methods() {
        let client = ["plain", "plain-secret", "orders"];
        let token = token(&idp, client, auth).await.unwrap();
        let claims = claims(&idp, &token);
        assert_eq!(claims["client_id"], "plain", "{name}");
        assert_eq!(claims["scope"], "orders");
        let response = introspect(&idp, token.expose_secret()).await;
        assert_eq!(response["active"], true, "{name}: {response}");
        assert_eq!(response["jti"], claims["jti"]);
    }
    let response = introspect(&idp, "no-token").await;
    assert_eq!(response["active"], false);
}

async fn p13_raw_basic_works_where_the_server_skips_form_decoding() {
    let idp = Glewlwyd::start("127.75.0.2").await;
    idp.add_service("special", SPECIAL, "orders").await;
    for (name, auth) in methods() {
        let answer = token(&idp, ["special", SPECIAL, "orders"], auth).await;
        if name == "basic" {
            let error = answer.unwrap_err();
            assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
        } else {
            let token = answer.expect(name);
            assert_eq!(claims(&idp, &token)["client_id"], "special");
        }
    }
}

async fn wrong_secret_or_scope_is_a_permanent_error_after_one_request() {
    let mut idp = Glewlwyd::start("127.75.0.3").await;
    idp.add_service("client", "client-secret", "orders").await;
    for (name, auth) in methods() {
        let wrong = ["client", "wrong", "orders"];
        let error = token(&idp, wrong, auth.clone()).await.unwrap_err();
        // This server answers with a status only: no body, no `invalid_client`.
        assert_eq!(error.kind(), ErrorKind::Status, "{name}");
        assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
        assert!(!error.is_retryable());

        // Its code for `invalid_scope` is its own.
        let other = ["client", "client-secret", "other"];
        let error = token(&idp, other, auth.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OAuth, "{name}");
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &OAuthErrorCode::Other("scope_invalid".into()));
        assert!(!error.is_retryable());

        let right = ["client", "client-secret", "orders"];
        token(&idp, right, auth).await.unwrap();
        let log = idp.log_until("Access token generated for client 'client'");
        let refused = log
            .iter()
            .filter(|line| line.contains("invalid for client_id"));
        assert_eq!(refused.count(), 1, "{name}: {log:#?}");
    }
}

async fn user_signs_in_with_pkce_and_refresh_tokens_rotate() {
    let idp = Glewlwyd::start("127.75.0.4").await;
    idp.add_service("api", "api-secret", "introspect").await;
    // A public client: only PKCE protects its codes, and this server is configured to require it.
    idp.add_client(&json!({
        "client_id": "program",
        "confidential": false,
        "scope": [],
        "authorization_type": ["code", "refresh_token"],
        "redirect_uri": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": ["none"],
    }))
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let client = |name: &str| client(&idp, &file(name));
    let login = client("session").start().await.unwrap();

    let ada = idp.sign_in("ada", "lovelace").await;
    idp.grant(&ada, "program", "orders").await;
    let callback = idp.authorize(&ada, login.url()).await;
    let session = login.finish(&callback).await.unwrap();
    fs::copy(file("session"), file("stolen")).unwrap();

    let clock = ManualClock::new();
    let cache = TokenCache::builder(session).clock(clock.clone()).build();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let token = cache.token().await.unwrap();
        let claims = claims(&idp, &token);
        assert_eq!(claims["client_id"], "program");
        assert_eq!(claims["scope"], "orders");
        assert!(!seen.contains(&claims["jti"]), "a new one");
        let response = introspect(&idp, token.expose_secret()).await;
        assert_eq!(
            (&response["active"], &response["username"]),
            (&json!(true), &json!("ada"))
        );
        seen.push(claims["jti"].clone());
        clock.advance(LIFETIME);
    }

    // An attacker has copied the first refresh token. It was used already, so the server revokes both
    // sessions, with an empty 400.
    let stolen = client("stolen").session();
    let stolen = TokenCache::builder(stolen).clock(clock.clone()).build();
    stolen.token().await.unwrap();
    clock.advance(LIFETIME);
    for revoked in [stolen, cache] {
        let error = revoked.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired);
        assert!(!error.is_retryable());
        let cause = std::error::Error::source(&error).unwrap();
        let cause: &bearer_auth::Error = cause.downcast_ref().unwrap();
        assert_eq!(cause.status(), Some(StatusCode::BAD_REQUEST));
    }
}
