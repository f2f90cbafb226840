//! Client authentication with a signed JWT (RFC 7523 §2.2, §3).

use std::{collections::BTreeSet, time::Duration};

use bearer_auth::{
    AuthorizationCode, ClientAuth, ClientCredentials, OAuthErrorCode, SigningKey, provider,
    testing::{Answer, MockIdp, Recorded},
};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::{Value, json};

use super::rig::*;

const SECRET: &str = "canary-canary-canary-canary-0032";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(crate) fn signing_key() -> (KeyPair, SigningKey) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let key = SigningKey::from_pem(pair.serialize_pem()).unwrap();
    (pair, key.key_id("k1"))
}

fn key() -> (KeyPair, ClientAuth) {
    let (pair, key) = signing_key();
    (pair, ClientAuth::private_key_jwt(key))
}

#[track_caller]
pub(crate) fn parameter(request: &Recorded, name: &str) -> String {
    let form = request.form();
    let mut values = form.iter().filter(|(known, _)| known == name);
    let (Some((_, value)), None) = (values.next(), values.next()) else {
        panic!("expected one `{name}`");
    };
    value.clone()
}

/// Decodes an assertion as the server `audience` would: verifies its signature and times.
#[track_caller]
pub(crate) fn accepted(assertion: &str, key: &KeyPair, audience: &str) -> TokenData<Value> {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    let public = DecodingKey::from_ec_der(key.der_bytes());
    let decoded = jsonwebtoken::decode::<Value>(assertion, &public, &validation).unwrap();
    assert_eq!(decoded.header.kid.as_deref(), Some("k1"));
    assert_eq!(decoded.claims["aud"], audience, "`aud` is a single string");
    decoded
}

/// The claims of the client's assertion in a request.
#[track_caller]
fn claims(request: &Recorded, key: &KeyPair, audience: &str) -> Value {
    accepted(&parameter(request, "client_assertion"), key, audience).claims
}

#[tokio::test]
async fn p15_p128_p129_p130_client_assertion_is_the_only_authentication() {
    let (key, auth) = key();
    let idp = MockIdp::start().await.unwrap();
    idp.always(token("t"));
    fetch(client(&idp).client_auth(auth)).await.unwrap();
    let request = only(idp.token_log());
    assert_eq!(parameter(&request, "client_assertion_type"), TYPE);
    let claims = claims(&request, &key, &idp.token_url());
    assert_eq!(claims["iss"], "client-id");
    assert_eq!(claims["sub"], "client-id");
    assert_eq!(parameter(&request, "client_id"), "client-id");
    assert_eq!(request.header("authorization"), None);
    assert!(!body(&request).contains("client-secret"));
    assert!(!body(&request).contains("client_secret"));
}

#[tokio::test]
async fn p131_assertion_audience_is_the_issuer_at_every_endpoint() {
    let (key, auth) = key();
    let idp = MockIdp::start().await.unwrap();
    let at = |path: &str| format!("{}{path}", idp.issuer());
    let pushed = json!({"request_uri": "urn:ietf:params:oauth:request_uri:1", "expires_in": 60});
    let tokens = json!({"access_token": "t", "token_type": "Bearer", "refresh_token": "r"});
    idp.then(Answer::json(201, pushed));
    idp.then(Answer::json(200, tokens));
    idp.always(Answer::status(200));
    let login = AuthorizationCode::builder(at("/authorize"), idp.token_url(), "client-id")
        .pushed_request_url(at("/par"))
        .revocation_url(at("/revoke"))
        .redirect_uri("https://app.example/callback")
        .issuer("https://idp.example")
        .client_auth(auth)
        // Requires client authentication, which this client has without a secret.
        .without_pkce()
        .build()
        .unwrap();
    let pending = login.start().await.unwrap();
    let state = parameter(&only(idp.token_log()), "state");
    let callback = format!("https://app.example/callback?code=c&state={state}");
    let session = pending.finish(&callback).await.unwrap();
    session.logout().await.unwrap();
    let log = idp.token_log();
    let mut paths: Vec<_> = log.iter().map(Recorded::path).collect();
    paths.dedup();
    assert_eq!(paths, ["/par", "/oauth2/v1/token", "/revoke"]);
    for request in &log {
        claims(request, &key, "https://idp.example");
    }
}

#[tokio::test]
async fn p132_other_audience_is_a_setting_without_fallback() {
    let (key, auth) = key();
    let url = "https://as.example/its/own/token";
    let source = |auth: &ClientAuth, idp: &MockIdp| client(idp).client_auth(auth.clone());
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::json(401, json!({"error": "invalid_client"})));
    let named = auth.clone().assertion_audience(url);
    fetch(source(&named, &idp)).await.unwrap_err();
    claims(&only(idp.token_log()), &key, url);
    // Without a known issuer, the audience is the token endpoint's URL.
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::json(401, json!({"error": "invalid_client"})));
    fetch(source(&auth, &idp)).await.unwrap_err();
    claims(&only(idp.token_log()), &key, &idp.token_url());
}

#[tokio::test]
async fn p133_assertion_type_is_jwt_unless_configured() {
    let (_, auth) = key();
    let own = "client-authentication+jwt";
    for (auth, expected) in [
        (auth.clone(), Some("JWT")),
        (auth.clone().assertion_type(own), Some(own)),
        (auth.clone().assertion_type(""), None),
    ] {
        let request = sent(|source| source.client_auth(auth)).await;
        let header = jsonwebtoken::decode_header(parameter(&request, "client_assertion"));
        assert_eq!(header.unwrap().typ.as_deref(), expected);
    }
}

#[tokio::test]
async fn p134_assertion_is_valid_for_a_minute() {
    let (key, auth) = key();
    let request = sent(|source| source.client_auth(auth.assertion_audience("x"))).await;
    let claims = claims(&request, &key, "x");
    let seconds = |name: &str| claims[name].as_u64().unwrap();
    assert_eq!(seconds("exp") - seconds("iat"), 60);
    assert_eq!(claims.get("nbf"), None);
}

#[tokio::test]
async fn p134_retry_has_a_new_assertion() {
    let (key, auth) = key();
    let rig = rig_with(|source| source.client_auth(auth)).await;
    let url = rig.idp.token_url();
    rig.idp.then(Answer::json(503, json!({})));
    rig.idp.then(Answer::json(503, json!({})));
    rig.idp.always(token("t"));
    rig.pass_pauses(rig.spawn_token()).await.unwrap();
    let log = rig.idp.token_log();
    assert_eq!(log.len(), 3);
    let ids: BTreeSet<_> = log
        .iter()
        .map(|request| claims(request, &key, &url)["jti"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn p135_p136_secret_of_32_bytes_signs_with_hs256() {
    let auth = ClientAuth::client_secret_jwt;
    let idp = MockIdp::start().await.unwrap();
    idp.always(token("t"));
    let source = ClientCredentials::builder(idp.token_url(), "client-id", SECRET);
    fetch(source.client_auth(auth())).await.unwrap();
    let request = only(idp.token_log());
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[idp.token_url()]);
    let secret = DecodingKey::from_secret(SECRET.as_bytes());
    let assertion = parameter(&request, "client_assertion");
    jsonwebtoken::decode::<Value>(assertion, &secret, &validation).unwrap();
    assert!(
        !body(&request).contains("canary"),
        "the secret itself is not sent"
    );
    let short = ClientCredentials::builder(idp.token_url(), "client-id", &SECRET[1..]);
    assert_eq!(refused(short.client_auth(auth())), "client_secret");
}

#[tokio::test]
async fn p15_assertion_with_another_method_is_a_configuration_error() {
    let url = "https://as.example/token";
    let source = || ClientCredentials::builder(url, "client-id", SECRET);
    let two = source()
        .client_auth(key().1)
        .client_auth(ClientAuth::basic());
    assert_eq!(refused(two), "client_auth");
    let own_param = source().param("client_assertion_type", TYPE);
    assert_eq!(refused(own_param), "param");
    let in_url = format!("{url}?client_assertion=x");
    let in_url = ClientCredentials::builder(in_url, "client-id", "").client_auth(key().1);
    assert_eq!(refused(in_url), "token_url");
    // A provider that requires a secret accepts a key instead.
    let smart = provider::smart_completions("https://idp.example", "client-id", "");
    assert!(smart.client_auth(key().1).build().is_ok());
}

#[tokio::test]
async fn p138_rejected_client_assertion_is_a_permanent_error() {
    let (key, auth) = key();
    let rig = rig_with(|source| source.client_auth(auth)).await;
    rig.idp.always(Answer::json(
        401,
        json!({"error": "invalid_client", "error_description": "jti was used"}),
    ));
    for _ in 0..10 {
        let error = rig.try_get("a").await.unwrap_err();
        let error = error.token_error().unwrap();
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &OAuthErrorCode::InvalidClient);
        assert!(!error.is_retryable());
        for hint in ["assertion's claims", "`aud`", "`exp`", "clock"] {
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
    assert_eq!(rig.idp.token_requests(), 1);
    // Much later, a new assertion is accepted.
    rig.idp.always(token("t"));
    rig.clock.advance(Duration::from_secs(300));
    rig.pass_pauses(rig.spawn_token()).await.unwrap();
    let url = rig.idp.token_url();
    let ids: Vec<_> = rig
        .idp
        .token_log()
        .iter()
        .map(|request| claims(request, &key, &url)["jti"].clone())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn p14_p55_assertion_is_neither_in_a_url_nor_printed() {
    let url = "https://as.example/token";
    for auth in [key().1, ClientAuth::client_secret_jwt()] {
        let source =
            || ClientCredentials::builder(url, "client-id", SECRET).client_auth(auth.clone());
        assert_eq!(refused(source().params_in_query()), "client_auth");
        assert_eq!(refused(source().use_get()), "client_auth");
        let built = source().build().unwrap();
        let shown = format!("{auth:?} {:?} {built:?} {built:#?}", source());
        assert!(!shown.contains("canary"), "{shown}");
    }
    // Neither in the error nor in the mock's log.
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::json(401, json!({"error": "invalid_client"})));
    let error = fetch(client(&idp).client_auth(key().1)).await.unwrap_err();
    let request = only(idp.token_log());
    kind(&error, &parameter(&request, "client_assertion"));
    assert_eq!(request.target, "/oauth2/v1/token");
    assert!(!format!("{request:?}").contains("eyJ"));
}
