//! Tests against the authorization server of the npm package `oidc-provider`, and an API that accepts
//! its tokens (`tests/e2e/oidc_provider/server/server.mjs`).
//!
//! Needs Node.js, and `npm ci` in `tests/e2e/oidc_provider/server`. Without them, the tests are ignored.

use std::sync::Arc;

use bearer_auth::{
    BearerAuth, BearerAuthLayer, ClientAuth, ClientCredentials, ClientCredentialsBuilder, Error,
    ErrorKind, OAuthErrorCode, ServiceError, TokenCache, endpoint::TowerClient,
};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    harness::tests,
    programs::oidc_provider::{OidcProvider, Stats, parse, poll},
    support::errors::text,
};

tests! {
    needs: [OidcProvider];
    reqwest_client_fetches_a_token_and_uses_it,
    hyper_util_client_recovers_from_a_revoked_token,
    revoked_token_is_replaced_and_the_caller_gets_200,
    requests_succeed_across_token_expiry,
    token_expired_while_idle_is_replaced,
    keep_fresh_refreshes_an_idle_token,
    wrong_secret_is_a_permanent_error_that_hides_the_secret,
    special_characters_in_id_and_secret_authenticate,
    #[threads(4)] eight_concurrent_tasks_make_one_token_request,
    token_scope_is_the_granted_scope,
    resource_indicator_sets_the_token_audience,
    unknown_resource_is_a_permanent_error_after_one_request,
    #[cfg(feature = "jwt")] clients_authenticate_with_signed_jwts,
    #[cfg(feature = "jwt")] jwt_bearer_assertion_is_exchanged_for_a_token,
}

type Failure = ServiceError<reqwest::Error>;

fn source(idp: &OidcProvider) -> ClientCredentialsBuilder {
    ClientCredentials::builder(idp.token_url(), "basic-client", "basic-secret")
}

fn layer(idp: &OidcProvider, source: ClientCredentialsBuilder) -> BearerAuthLayer {
    BearerAuthLayer::for_api(idp.api_url(), source.build().unwrap()).unwrap()
}

/// `reqwest::Client` with a token.
fn client(idp: &OidcProvider, source: ClientCredentialsBuilder) -> BearerAuth<reqwest::Client> {
    let inner = reqwest::Client::builder().no_proxy().build().unwrap();
    layer(idp, source).layer(inner)
}

async fn send(
    client: &BearerAuth<reqwest::Client>,
    idp: &OidcProvider,
    method: Method,
    body: &'static str,
) -> Result<(StatusCode, Value), Failure> {
    let mut request = reqwest::Request::new(method, idp.resource().parse().unwrap());
    *request.body_mut() = Some(body.into());
    let response = client.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.bytes().await.map_err(ServiceError::Inner)?;
    Ok((status, parse(body)))
}

/// Sends a GET that must succeed. Returns how many different tokens the API has seen.
async fn get(client: &BearerAuth<reqwest::Client>, idp: &OidcProvider) -> u64 {
    let (status, body) = send(client, idp, Method::GET, "").await.unwrap();
    assert_eq!(status, 200, "{body}");
    body["token_n"].as_u64().unwrap()
}

async fn reqwest_client_fetches_a_token_and_uses_it() {
    let idp = OidcProvider::start();
    let client = client(&idp, source(&idp));
    assert_eq!(get(&client, &idp).await, 1);
    let (status, body) = send(&client, &idp, Method::POST, "order").await.unwrap();
    assert_eq!((status, &body["body_length"]), (StatusCode::OK, &json!(5)));
    let expected = Stats {
        token_requests: 1,
        token_requests_failed: 0,
        api_ok: 2,
        api_401: 0,
    };
    assert_eq!(idp.stats().await, expected);
}

async fn hyper_util_client_recovers_from_a_revoked_token() {
    let idp = OidcProvider::start();
    let hyper = || Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let source = source(&idp).http_client(TowerClient::new(hyper()));
    let client = layer(&idp, source).layer(hyper());
    for revoked in [0, 1] {
        assert_eq!(idp.revoke_all().await, revoked);
        let request = http::Request::post(idp.resource());
        let request = request.body(Full::from("order")).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(parse(body)["body_length"], 5);
    }
    let expected = Stats {
        token_requests: 2,
        token_requests_failed: 0,
        api_ok: 2,
        api_401: 1,
    };
    assert_eq!(idp.stats().await, expected);
}

async fn revoked_token_is_replaced_and_the_caller_gets_200() {
    let idp = OidcProvider::start();
    let client = client(&idp, source(&idp));
    assert_eq!(get(&client, &idp).await, 1);
    assert_eq!(idp.revoke_all().await, 1);

    let (status, body) = send(&client, &idp, Method::POST, "order").await.unwrap();
    assert_eq!(status, 200);
    let expected = json!({ "ok": true, "token_n": 2, "body_length": 5 });
    assert_eq!(body, expected, "resent in full, with the second token");
    let expected = Stats {
        token_requests: 2,
        token_requests_failed: 0,
        api_ok: 2,
        api_401: 1,
    };
    assert_eq!(idp.stats().await, expected);
}

/// The server counts whole seconds: a token of 2 s lives for one to two.
async fn requests_succeed_across_token_expiry() {
    let idp = OidcProvider::start_with(json!({ "ttl": 2 }));
    let client = client(&idp, source(&idp));
    // `get` asserts that each request succeeds.
    poll("a second token", async || {
        (get(&client, &idp).await == 2).then_some(())
    })
    .await;
    let stats = idp.stats().await;
    assert_eq!(stats.token_requests_failed, 0);
    // Usually two. A machine that stalls for a second needs one more.
    assert!((2..=3).contains(&stats.token_requests), "{stats:?}");
    // The server's clock may pass the expiry before the refresh window begins. Then the API answers 401.
    assert!(stats.api_401 < stats.token_requests, "{stats:?}");
}

async fn token_expired_while_idle_is_replaced() {
    let idp = OidcProvider::start_with(json!({ "ttl": 2 }));
    let client = client(&idp, source(&idp));
    assert_eq!(get(&client, &idp).await, 1);
    let layer = layer(&idp, source(&idp));
    let token = layer.cache().token().await.unwrap();
    // This token is newer than the client's: when it has expired, so has the client's.
    poll("the expiry of the token", async || {
        (idp.status_with(token.expose_secret()).await == 401).then_some(())
    })
    .await;

    let before = idp.stats().await;
    get(&client, &idp).await;
    let after = idp.stats().await;
    assert_eq!(after.token_requests, before.token_requests + 1);
    assert_eq!(after.token_requests_failed, 0);
    assert_eq!(after.api_ok, before.api_ok + 1);
    assert!(after.api_401 <= before.api_401 + 1);
}

async fn keep_fresh_refreshes_an_idle_token() {
    let idp = OidcProvider::start_with(json!({ "ttl": 2 }));
    let cache = TokenCache::new(source(&idp).build().unwrap());
    let guard = cache.keep_fresh();
    poll("a second token request", async || {
        (idp.stats().await.token_requests >= 2).then_some(())
    })
    .await;
    assert!(cache.status().ready);
    drop(guard);
}

async fn wrong_secret_is_a_permanent_error_that_hides_the_secret() {
    const SECRET: &str = "s3cret-canary";
    let idp = OidcProvider::start();
    let methods = [
        ("basic-client", ClientAuth::basic()),
        ("post-client", ClientAuth::post()),
    ];
    for (requests, (id, auth)) in (1..).zip(methods) {
        let source = ClientCredentials::builder(idp.token_url(), id, SECRET).client_auth(auth);
        let client = client(&idp, source);
        // The second call sends no token request.
        for _ in 0..2 {
            let failure = send(&client, &idp, Method::GET, "").await.unwrap_err();
            let error: &Error = failure.token_error().unwrap();
            assert_eq!(error.kind(), ErrorKind::OAuth);
            let oauth = error.oauth_error().unwrap();
            assert_eq!(*oauth.code(), OAuthErrorCode::InvalidClient);
            assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
            assert!(!error.is_retryable());
            let text = text(&failure);
            assert!(text.contains("invalid_client"), "{text}");
            assert!(!text.contains(SECRET), "{text}");
        }
        let stats = idp.stats().await;
        assert_eq!(stats.token_requests, requests);
        assert_eq!(stats.token_requests_failed, requests);
        assert_eq!((stats.api_ok, stats.api_401), (0, 0));
    }
}

/// All of printable ASCII, which is what this server accepts in credentials.
async fn special_characters_in_id_and_secret_authenticate() {
    let secret: String = (' '..='~').collect();
    let id: String = secret.chars().rev().collect();
    let client_of = |method: &str| {
        json!({
            "clients": [{
                "client_id": id,
                "client_secret": secret,
                "token_endpoint_auth_method": method,
            }],
        })
    };
    for (method, auth) in [
        ("client_secret_basic", ClientAuth::basic()),
        ("client_secret_post", ClientAuth::post()),
    ] {
        let idp = OidcProvider::start_with(client_of(method));
        let source = ClientCredentials::builder(idp.token_url(), &id, secret.as_str());
        let client = client(&idp, source.client_auth(auth));
        assert_eq!(get(&client, &idp).await, 1, "{method}");
        assert_eq!(idp.stats().await.token_requests, 1);
    }
}

async fn eight_concurrent_tasks_make_one_token_request() {
    const TASKS: usize = 8;
    let idp = Arc::new(OidcProvider::start());
    let client = client(&idp, source(&idp));
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (idp, client, start) = (Arc::clone(&idp), client.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                get(&client, &idp).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    let expected = Stats {
        token_requests: 1,
        token_requests_failed: 0,
        api_ok: 8,
        api_401: 0,
    };
    assert_eq!(idp.stats().await, expected);
}

async fn token_scope_is_the_granted_scope() {
    let idp = OidcProvider::start();
    for (requested, granted) in [
        ("api:read api:write", Some("api:read api:write")),
        // The server drops scopes that it does not know.
        ("api:read no:such", Some("api:read")),
        ("", None),
    ] {
        let layer = layer(&idp, source(&idp).scope(requested));
        let token = layer.cache().token().await.unwrap();
        assert_eq!(token.scope(), granted, "{requested}");
    }
}

async fn resource_indicator_sets_the_token_audience() {
    const RESOURCE: &str = "https://api.example.com";
    let idp = OidcProvider::start();
    let source = source(&idp).resource(RESOURCE).scope("api:write");
    let layer = layer(&idp, source);
    let token = layer.cache().token().await.unwrap();
    assert_eq!(token.scope(), Some("api:write"));
    let about = idp.introspect(token.expose_secret()).await;
    assert_eq!(about["active"], true);
    assert_eq!(about["aud"], RESOURCE, "{about}");
    assert_eq!(about["scope"], "api:write");
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
}

async fn unknown_resource_is_a_permanent_error_after_one_request() {
    let idp = OidcProvider::start();
    let client = client(&idp, source(&idp).resource("https://unknown.example"));
    for _ in 0..2 {
        let failure = send(&client, &idp, Method::GET, "").await.unwrap_err();
        let error = failure.token_error().unwrap();
        let oauth = error.oauth_error().unwrap();
        assert_eq!(*oauth.code(), OAuthErrorCode::InvalidTarget);
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
        assert!(!error.is_retryable());
    }
    let stats = idp.stats().await;
    assert_eq!((stats.token_requests, stats.token_requests_failed), (1, 1));
    assert_eq!((stats.api_ok, stats.api_401), (0, 0));
}

/// The public part of a key, as a JWK.
#[cfg(feature = "jwt")]
fn public_jwk(key: &rcgen::KeyPair) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use rcgen::PublicKeyData as _;

    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let raw = key.der_bytes();
    match raw.len() {
        32 => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(raw)}),
        65 => {
            json!({"kty": "EC", "crv": "P-256", "x": encode(&raw[1..33]), "y": encode(&raw[33..])})
        }
        // A DER sequence: nine bytes, the modulus, and the exponent 65537.
        270 => json!({"kty": "RSA", "n": encode(&raw[9..265]), "e": "AQAB"}),
        other => unreachable!("a public key of {other} bytes"),
    }
}

#[cfg(feature = "jwt")]
async fn clients_authenticate_with_signed_jwts() {
    use bearer_auth::{SigningAlgorithm, SigningKey};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};

    let secret = "secret-secret-secret-secret-0032";
    let keys = [
        (SigningAlgorithm::Rs256, "RS256", &PKCS_RSA_SHA256),
        (SigningAlgorithm::Ps256, "PS256", &PKCS_RSA_SHA256),
        (SigningAlgorithm::Es256, "ES256", &PKCS_ECDSA_P256_SHA256),
        (SigningAlgorithm::EdDsa, "EdDSA", &PKCS_ED25519),
    ]
    .map(|(algorithm, name, kind)| (algorithm, name, KeyPair::generate_for(kind).unwrap()));
    let mut clients: Vec<_> = keys
        .iter()
        .map(|(_, name, key)| {
            let mut jwk = public_jwk(key);
            jwk["kid"] = json!("k1");
            json!({
                "client_id": name, "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": name, "jwks": {"keys": [jwk]},
            })
        })
        .collect();
    clients.push(json!({
        "client_id": "HS256", "client_secret": secret,
        "token_endpoint_auth_method": "client_secret_jwt",
        "token_endpoint_auth_signing_alg": "HS256",
    }));
    let idp = OidcProvider::start_with(json!({"clients": clients}));
    let source = |id: &str, auth: ClientAuth| {
        ClientCredentials::builder(idp.token_url(), id, secret).client_auth(auth)
    };
    let fetch = async |id: &str, auth: ClientAuth| {
        let source = source(id, auth).build().unwrap();
        TokenCache::new(source).token().await
    };
    let mut auths = vec![("HS256", ClientAuth::client_secret_jwt())];
    for (algorithm, name, key) in &keys {
        let key = SigningKey::from_pem(key.serialize_pem()).unwrap();
        let key = key.algorithm(*algorithm).key_id("k1");
        auths.push((name, ClientAuth::private_key_jwt(key)));
    }
    for (id, auth) in auths {
        // The issuer, as in the draft, and the URL of the token endpoint.
        let by_issuer = auth.clone().assertion_audience(idp.issuer());
        for auth in [by_issuer, auth.clone()] {
            let token = fetch(id, auth).await.unwrap();
            assert_eq!(idp.status_with(token.expose_secret()).await, 200, "{id}");
        }
        // The audience of another server.
        let error = fetch(id, auth.assertion_audience("https://other.example"));
        let error = error.await.unwrap_err();
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &OAuthErrorCode::InvalidClient, "{id}");
    }
}

/// The JWT bearer grant (RFC 7523 §2.1). The server verifies the assertion with `jose`.
#[cfg(feature = "jwt")]
async fn jwt_bearer_assertion_is_exchanged_for_a_token() {
    use bearer_auth::{JwtBearer, JwtBearerBuilder, SigningKey};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    let made = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let signing = |key: &KeyPair| SigningKey::from_pem(key.serialize_pem()).unwrap();
    let key = made();
    let mut jwk = public_jwk(&key);
    jwk["kid"] = json!("k1");
    let config = json!({
        "jwt_bearer": {"issuer": "us", "keys": [jwk]},
        "clients": [
            {"client_id": "public", "token_endpoint_auth_method": "none"},
            {"client_id": "app", "client_secret": "secret"},
        ],
    });
    let idp = OidcProvider::start_with(config);
    let signed = |key: &KeyPair| {
        let source = JwtBearer::discover(idp.issuer(), signing(key).key_id("k1"));
        let source = source.issuer("us").subject("ada").client("public", "");
        source.scope("api:read")
    };
    let by_url = JwtBearer::builder(idp.token_url(), signing(&key).key_id("k1"))
        .issuer("us")
        .subject("ada");
    for source in [
        signed(&key),
        signed(&key).client("app", "secret"),
        signed(&key).assertion_type("authorization-grant+jwt"),
        signed(&key).claim("custom", json!({"a": [1]})),
        // With the token endpoint as the audience.
        by_url.client("public", ""),
    ] {
        let cache = TokenCache::new(source.build().unwrap());
        let first = cache.token().await.unwrap();
        assert_eq!(idp.status_with(first.expose_secret()).await, 200);
        // The server accepts no assertion twice.
        cache.refresh().await.unwrap();
        let second = cache.token().await.unwrap();
        assert_ne!(first.expose_secret(), second.expose_secret());
    }
    let before = idp.stats().await;
    assert_eq!(
        (before.token_requests, before.token_requests_failed),
        (10, 0)
    );
    let refused: [JwtBearerBuilder; 4] = [
        signed(&made()),
        signed(&key).issuer("others"),
        signed(&key).audience("https://other.example"),
        JwtBearer::discover(idp.issuer(), signing(&key).key_id("k1"))
            .issuer("us")
            .client("public", ""),
    ];
    for source in refused {
        let cache = TokenCache::new(source.build().unwrap());
        let error = cache.token().await.unwrap_err();
        let code = error.oauth_error().unwrap().code();
        assert_eq!(code, &OAuthErrorCode::InvalidGrant, "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(
        idp.stats().await.token_requests_failed,
        4,
        "one request each"
    );
}
