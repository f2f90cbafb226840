//! Pushed authorization requests (RFC 9126).

use std::{convert::Infallible, future::pending};

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, Error, ErrorKind, Login, OAuthErrorCode,
    endpoint::TowerClient,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use super::rig::{browse, credentials, kind, parameters, value};

const REDIRECT: &str = "https://app.example/cb";
const PUSH: &str = "/oauth2/v1/par";

async fn idp() -> MockIdp {
    let clients = MockIdp::builder().client("app", "").client("web", "secret");
    let idp = clients.start().await.unwrap();
    idp.set_metadata("revocation_endpoint", Value::Null);
    idp
}

fn pushing(idp: &MockIdp, client: &str) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), client)
        .redirect_uri(REDIRECT)
        .pushed_request_url(idp.issuer() + PUSH)
}

#[tokio::test]
async fn p153_pushed_request_has_all_parameters_and_client_authentication() {
    let idp = idp().await;
    for (auth, proof) in [
        (pushing(&idp, "app"), None),
        (
            pushing(&idp, "web").client_secret("secret"),
            Some("web:secret"),
        ),
    ] {
        let auth = auth
            .scope("openid orders:read")
            .param("resource", "https://a.example/")
            .param("resource", "https://b.example/")
            .param("prompt", "login");
        let auth = auth.header("x-own", "token endpoint's").build().unwrap();
        let login = Login::new()
            .param("login_hint", "ada")
            .param("prompt", "none");
        let login = auth.start_with(login).await.unwrap();
        let sent = idp.token_log().pop().unwrap();
        assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", PUSH));
        assert_eq!(
            sent.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        assert_eq!(sent.header("x-own"), None);
        let header = sent.header("authorization").is_some();
        assert_eq!(header.then(|| credentials(&sent)).as_deref(), proof);
        let form = sent.form();
        let client = if proof.is_some() { "web" } else { "app" };
        for (name, expected) in [
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("scope", "openid orders:read"),
            ("state", secrecy::ExposeSecret::expose_secret(login.state())),
            ("code_challenge_method", "S256"),
            ("prompt", "none"),
            ("login_hint", "ada"),
        ] {
            assert_eq!(value(&form, name), Some(expected), "{name}");
        }
        assert!(value(&form, "code_challenge").is_some());
        assert_eq!(
            form.iter().filter(|(name, _)| name == "resource").count(),
            2
        );
        let callback = browse(login.url()).await;
        login.finish(&callback).await.unwrap();
    }
}

#[tokio::test]
async fn p153_pushed_request_url_without_tls_is_a_configuration_error() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").pushed_request_url("http://idp.example/par");
    assert_eq!(auth.build().unwrap_err().field(), "pushed_request_url");
}

#[tokio::test]
async fn p154_request_uri_parameter_is_never_pushed() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").param("request_uri", "urn:x");
    assert_eq!(auth.build().unwrap_err().field(), "param");
    let auth = pushing(&idp, "app").build().unwrap();
    let login = Login::new().param("request_uri", "urn:x");
    assert_eq!(
        auth.start_with(login).await.unwrap_err().kind(),
        ErrorKind::SignIn
    );
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn p155_success_is_a_request_uri_with_a_positive_lifetime() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").build().unwrap();
    let uri = "urn:ietf:params:oauth:request_uri:x";
    for (status, body) in [
        (201, json!({"request_uri": uri, "expires_in": 60})),
        (
            200,
            json!({"request_uri": uri, "expires_in": 0.5, "more": []}),
        ),
    ] {
        idp.then(Answer::json(status, body));
        let login = auth.start().await.unwrap();
        assert_eq!(value(&parameters(login.url()), "request_uri"), Some(uri));
    }
    for body in [
        json!({"expires_in": 60}),
        json!({"request_uri": "", "expires_in": 60}),
        json!({"request_uri": 17, "expires_in": 60}),
        json!({"request_uri": "canary"}),
        json!({"request_uri": "canary", "expires_in": 0}),
        json!({"request_uri": "canary", "expires_in": -1}),
        json!(["canary"]),
    ] {
        idp.then(Answer::json(201, body.clone()));
        let error = auth.start().await.unwrap_err();
        assert_eq!(kind(&error, "canary"), ErrorKind::InvalidResponse, "{body}");
    }
    idp.then(Answer::bytes(201, "text/html", "canary"));
    let error = auth.start().await.unwrap_err();
    assert_eq!(kind(&error, "canary"), ErrorKind::InvalidResponse);
}

#[tokio::test]
async fn p156_authorization_url_has_only_client_id_and_request_uri() {
    let idp = idp().await;
    let url = idp.authorization_url() + "?policy=b2c%5F1";
    let auth = AuthorizationCode::builder(url.as_str(), idp.token_url(), "app")
        .redirect_uri(REDIRECT)
        .scope("openid")
        .pushed_request_url(idp.issuer() + PUSH)
        .build()
        .unwrap();
    let login = auth.start().await.unwrap();
    let reference = "urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3A1";
    let expected = format!("{url}&client_id=app&request_uri={reference}");
    assert_eq!(login.url(), expected);
    let callback = browse(login.url()).await;
    login.finish(&callback).await.unwrap();
}

#[tokio::test]
async fn p157_each_login_has_its_own_request_uri() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").build().unwrap();
    let (one, other) = (auth.start().await.unwrap(), auth.start().await.unwrap());
    assert_ne!(one.url(), other.url());
    assert_eq!(idp.token_requests(), 2);
    // A resumed login has the same reference, and sends nothing.
    let saved = one.save();
    let saved = auth
        .resume(secrecy::ExposeSecret::expose_secret(&saved))
        .unwrap();
    assert_eq!(saved.url(), one.url());
    assert_eq!(idp.token_requests(), 2);
    // The server rejects a used reference.
    browse(one.url()).await;
    let again = idp.sign_in(one.url());
    assert!(again.is_err());
}

#[tokio::test]
async fn p158_errors_are_classified_as_for_a_token_request() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").build().unwrap();
    let failed = async |answer| -> Error {
        idp.then(answer);
        auth.start().await.unwrap_err()
    };
    let error = failed(Answer::oauth_error("invalid_request")).await;
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::InvalidRequest);
    assert!(error.to_string().contains("pushed"), "{error}");
    let limited = failed(Answer::status(429).header("retry-after", "7")).await;
    assert_eq!(limited.retry_after().unwrap().as_secs(), 7);
    assert!(limited.is_retryable());
    for status in [405, 413] {
        let error = failed(Answer::status(status)).await;
        assert_eq!(error.status().unwrap(), status);
        assert!(!error.is_retryable(), "{error}");
    }
    let before = idp.token_requests();
    let web = pushing(&idp, "web").client_secret("wrong").build().unwrap();
    let error = web.start().await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::InvalidClient);
    assert_eq!(idp.token_requests(), before + 1);
}

#[tokio::test]
async fn p159_advertised_endpoint_is_used_and_required_pushing_cannot_be_disabled() {
    let idp = idp().await;
    let auth = || {
        let auth = AuthorizationCode::discover(idp.issuer(), "app");
        auth.redirect_uri(REDIRECT)
    };
    let is_pushed = async |auth: AuthorizationCodeBuilder| -> Result<bool, Error> {
        let login = auth.build().unwrap().start().await?;
        Ok(value(&parameters(login.url()), "request_uri").is_some())
    };
    assert!(is_pushed(auth()).await.unwrap());
    assert!(!is_pushed(auth().without_pushed_requests()).await.unwrap());
    idp.set_metadata("require_pushed_authorization_requests", true.into());
    assert!(is_pushed(auth()).await.unwrap());
    let error = is_pushed(auth().without_pushed_requests())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Discovery);
    // Required, but without an endpoint.
    idp.set_metadata("pushed_authorization_request_endpoint", Value::Null);
    let error = is_pushed(auth()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Discovery);
    idp.set_metadata("require_pushed_authorization_requests", false.into());
    assert!(!is_pushed(auth()).await.unwrap());
}

#[tokio::test]
#[cfg(feature = "jwt")]
async fn p160_assertion_audience_is_the_issuer() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let idp = idp().await;
    let secret = "0123456789-0123456789-0123456789";
    let auth = AuthorizationCode::discover(idp.issuer(), "web")
        .client_secret(secret)
        .client_auth(bearer_auth::ClientAuth::client_secret_jwt())
        .redirect_uri(REDIRECT)
        .build()
        .unwrap();
    // The mock does not support assertions.
    auth.start().await.unwrap_err();
    let sent = idp.token_log().pop().unwrap();
    assert_eq!(sent.path(), PUSH);
    let form = sent.form();
    let claims = value(&form, "client_assertion").unwrap();
    let claims = claims.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(idp.issuer()));
    assert_eq!(value(&form, "client_id"), Some("web"));
}

#[tokio::test]
async fn p159_without_pushed_requests_the_url_has_all_parameters() {
    let idp = idp().await;
    let auth = pushing(&idp, "app").without_pushed_requests();
    let login = auth.build().unwrap().start().await.unwrap();
    assert_eq!(value(&parameters(login.url()), "request_uri"), None);
    assert_eq!(idp.token_requests(), 0);
}

/// The HTTP client has no time limit of its own.
#[tokio::test(start_paused = true)]
async fn p158_silent_server_times_out() {
    let never = |_: Request<Full<Bytes>>| pending::<Result<Response<Full<Bytes>>, Infallible>>();
    let http = || TowerClient::new(tower::service_fn(never));
    let auth = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "app")
        .redirect_uri(REDIRECT)
        .http_client(http());
    let login = auth.build().unwrap().start().await.unwrap();
    let state = secrecy::ExposeSecret::expose_secret(login.state()).to_owned();
    let finished = login.finish(&format!("code=x&state={state}")).await;
    assert_eq!(finished.unwrap_err().kind(), ErrorKind::Timeout);
    let auth = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "app")
        .pushed_request_url("https://idp.example/par")
        .http_client(http());
    let started = auth.build().unwrap().start().await;
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Timeout);
}
