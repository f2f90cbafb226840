//! Token requests: every client authentication method, every place of parameters, every response.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bearer_auth::{
    ClientAuth, ClientCredentials, ClientCredentialsBuilder, Error, ErrorKind, JwtBearer,
    SigningKey, TokenCache, TokenRequest, TokenSource,
    endpoint::{HttpError, ReqwestClient, TowerClient},
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::*,
        rig::{Certified, Key, Tls, address, cache, credentials, echoes, hurried, idp, token},
        watch::Watch,
    },
    http::closed_port,
};

/// Requests a token directly and through a cache with a listener, and watches the results.
async fn ask(watch: &Watch, source: impl TokenSource + std::fmt::Debug) -> Option<Error> {
    watch.debug(&source);
    let asked = source.fetch(TokenRequest::new()).await;
    match &asked {
        Ok(response) => watch.debug(response),
        Err(error) => watch.error(error),
    }
    let (cache, clock) = cache(source);
    match hurried(&clock, cache.refresh()).await {
        Ok(token) => watch.debug(&token),
        Err(error) => watch.error(&error),
    }
    watch.debug(&cache);
    watch.debug(&cache.status());
    asked.err()
}

/// Adds the signatures of the sent assertions to the secrets: each assertion is new.
fn learn(watch: &Watch, idp: &MockIdp) {
    for request in idp.token_log() {
        watch.debug(&request);
        for (name, value) in request.form() {
            if name == "assertion" || name == "client_assertion" {
                // Header and claims are no secrets, and partly the same in all assertions.
                let (_, signature) = value.rsplit_once('.').unwrap();
                watch.secret(Assertion, signature);
            }
        }
    }
}

/// The HTTP clients for token requests that the crate configures itself.
fn clients(tls: Option<&Tls>) -> [ReqwestClient; 1] {
    let client = ReqwestClient::new();
    [match tls {
        Some(tls) => client.root_certificate_pem(tls.root.as_bytes()).unwrap(),
        None => client,
    }]
}

fn tower(
    http2: bool,
) -> TowerClient<
    impl tower::Service<
        http::Request<Full<Bytes>>,
        Response = http::Response<hyper::body::Incoming>,
        Error = HttpError,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static,
> {
    let mut client = Client::builder(TokioExecutor::new());
    let client: Client<HttpConnector, Full<Bytes>> = client.http2_only(http2).build_http();
    TowerClient::new(tower::ServiceExt::map_err(client, HttpError::other))
}

fn secret_methods() -> Vec<ClientAuth> {
    vec![
        ClientAuth::basic(),
        ClientAuth::basic().scheme("BASIC"),
        ClientAuth::basic_raw(),
        ClientAuth::post(),
        ClientAuth::client_secret_jwt(),
    ]
}

#[tokio::test]
async fn p55_client_authentication_methods_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let key = Key::new(&watch);
    let mut methods = secret_methods();
    methods.push(ClientAuth::private_key_jwt(
        SigningKey::from_pem(key.pem.as_str()).unwrap(),
    ));
    methods.push(ClientAuth::private_key_jwt(
        SigningKey::from_jwk(key.jwk.as_str()).unwrap(),
    ));
    for method in methods {
        watch.debug(&method);
        let source = || credentials(idp.token_url()).client_auth(method.clone());
        watch.debug(&source());
        assert!(ask(&watch, source().build().unwrap()).await.is_none());
        for http2 in [false, true] {
            let source = source().http_client(tower(http2));
            assert!(ask(&watch, source.build().unwrap()).await.is_none());
        }
        idp.then(Answer::json(401, json!({"error": "invalid_client"})));
        let refused = ask(&watch, source().build().unwrap()).await.unwrap();
        assert_eq!(refused.kind(), ErrorKind::OAuth);
    }
    learn(&watch, &idp);
    watch.heard(&[
        "tracing bearer_auth",
        "tracing hyper_util",
        "tracing h2",
        "log reqwest",
        "metrics",
    ]);
    watch.end();
}

/// A client that prints its request headers prints no secret.
#[tokio::test]
async fn p55_printed_headers_of_a_token_request_show_no_secret() {
    alone!();
    let watch = Arc::new(Watch::new().await);
    for method in secret_methods() {
        let sent = Arc::clone(&watch);
        let http = TowerClient::new(tower::service_fn(move |request: Request<Full<Bytes>>| {
            sent.debug(request.headers());
            sent.text(
                "headers",
                format!("{:?}", request.headers().get("x-account")),
            );
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        }));
        let source = credentials("https://idp.example/token").client_auth(method);
        let source = source.http_client(http).build().unwrap();
        let error = source.fetch(TokenRequest::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    }
    watch.heard(&["Debug of HeaderMap"]);
    Arc::into_inner(watch).unwrap().end();
}

#[tokio::test]
async fn p55_http1_and_http2_over_tls_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let identity = Certified::new(&watch);
    let server = address(idp.token_url().as_str());
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let tls = Tls::before(&watch, server, protocol, None).await;
        for method in secret_methods() {
            let [http] = clients(Some(&tls));
            watch.debug(&http);
            let source = credentials(tls.at(&idp.token_url())).client_auth(method);
            assert!(
                ask(&watch, source.http_client(http).build().unwrap())
                    .await
                    .is_none()
            );
        }
        for (_, answer) in echoes() {
            idp.then(answer.clone());
            idp.then(answer);
            let [http] = clients(Some(&tls));
            let source = credentials(tls.at(&idp.token_url())).http_client(http);
            assert!(ask(&watch, source.build().unwrap()).await.is_some());
            idp.recover();
            idp.always(token());
        }
        // With a client certificate.
        let tls = Tls::before(&watch, server, protocol, Some(&identity)).await;
        let [http] = clients(Some(&tls));
        let http = http.identity_pem(identity.pem.as_str()).unwrap();
        watch.debug(&http);
        idp.then(token());
        let source = credentials(tls.at(&idp.token_url()))
            .client_auth(ClientAuth::tls())
            .http_client(http);
        let _ = ask(&watch, source.build().unwrap()).await;
        // Without a client certificate, and without a trusted root.
        let [http] = clients(Some(&tls));
        for http in [http, ReqwestClient::new()] {
            let source = credentials(tls.at(&idp.token_url())).http_client(http);
            assert!(ask(&watch, source.build().unwrap()).await.is_some());
        }
    }
    learn(&watch, &idp);
    watch.heard(&[
        "log rustls",
        "tracing h2",
        "tracing hyper_util",
        "log reqwest",
    ]);
    watch.end();
}

type In = fn(ClientCredentialsBuilder) -> ClientCredentialsBuilder;

/// Parameters in the URL, which the caller may configure, are not logged.
#[tokio::test]
async fn p55_parameters_in_the_url_are_not_logged() {
    alone!();
    let watch = Watch::new().await;
    let builder = MockIdp::builder().client(ClientId.text(), ClientSecret.text());
    let idp = builder.allow_get().start().await.unwrap();
    idp.always(token());
    let tls = Tls::before(&watch, address(&idp.token_url()), b"h2", None).await;
    let (closed, _port) = closed_port();
    let query = format!("?account={}", Query.text());
    for place in [
        ClientCredentialsBuilder::params_in_query as In,
        ClientCredentialsBuilder::use_get,
    ] {
        let there = format!("{}{query}", tls.at(&idp.token_url()));
        let [http] = clients(Some(&tls));
        let source = place(credentials(there)).http_client(http);
        assert!(ask(&watch, source.build().unwrap()).await.is_none());
        for url in [idp.token_url(), closed.clone() + "/token"] {
            let url = format!("{url}{query}");
            let expected = (!url.starts_with(&closed)).then_some(()).is_none();
            let source = || place(credentials(url.clone()));
            watch.debug(&source());
            let source_ = source().build().unwrap();
            assert_eq!(ask(&watch, source_).await.is_some(), expected);
            for http2 in [false, true] {
                let source = source().http_client(tower(http2)).build().unwrap();
                assert_eq!(ask(&watch, source).await.is_some(), expected);
            }
        }
        idp.then(Answer::redirect(&format!("/else?code={}", Query.text())));
        let source = place(credentials(idp.token_url() + &query));
        assert!(ask(&watch, source.build().unwrap()).await.is_some());
    }
    let sent = idp
        .token_log()
        .iter()
        .filter(|r| r.target.contains(&Query.text()))
        .count();
    assert!(sent > 10, "{sent}");
    learn(&watch, &idp);
    watch.heard(&["tracing hyper_util", "tracing h2", "log reqwest"]);
    watch.end();
}

#[tokio::test]
async fn p55_secrets_echoed_by_the_server_are_not_shown() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    for (name, answer) in echoes() {
        for http2 in [None, Some(false), Some(true)] {
            idp.then(answer.clone());
            idp.then(answer.clone());
            let source = credentials(idp.token_url());
            let source = match http2 {
                None => source,
                Some(http2) => source.http_client(tower(http2)),
            };
            let failed = ask(&watch, source.build().unwrap()).await;
            assert!(failed.is_some(), "{name}");
            watch.debug(&answer);
            idp.recover();
            idp.always(token());
        }
    }
    watch.heard(&["tracing bearer_auth", "tracing hyper_util", "log reqwest"]);
    watch.end();
}

/// A known exposure: a syntactically valid error code (RFC 6749 §5.2) and the scope are shown, also
/// if the server puts a secret into them. Nothing else of a response is shown.
#[tokio::test]
async fn error_code_and_scope_are_shown_even_if_they_are_secrets() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let code = &ClientSecret.text()[..12];
    idp.then(Answer::json(400, json!({"error": code})));
    let error = credentials(idp.token_url()).build().unwrap();
    watch.error(&error.fetch(TokenRequest::new()).await.unwrap_err());
    let given = json!({"access_token": AccessToken.text(), "scope": SecondAccessToken.text()});
    idp.then(Answer::json(200, given));
    let cache = TokenCache::new(credentials(idp.token_url()).build().unwrap());
    watch.debug(&cache.token().await.unwrap());
    watch.end_but(&[
        (ClientSecret, "Display of Error"),
        (ClientSecret, "Debug of Error"),
        (ClientSecret, "causes of Error"),
        (SecondAccessToken, "Debug of AccessToken"),
    ]);
}

#[tokio::test]
async fn p55_jwt_bearer_grant_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let builder = MockIdp::builder().client(ClientId.text(), ClientSecret.text());
    let idp = builder.start().await.unwrap();
    idp.always(token());
    let key = Key::new(&watch);
    let source = || {
        JwtBearer::builder(
            idp.token_url(),
            SigningKey::from_pem(key.pem.as_str()).unwrap(),
        )
        .issuer("our-own.example")
        .claim("who", Claim.text())
        .subject(Hint.text())
        .param("account_key", Param.text())
        .client(ClientId.text(), ClientSecret.text())
    };
    watch.debug(&source());
    assert!(ask(&watch, source().build().unwrap()).await.is_none());
    for (_, answer) in echoes() {
        idp.always(answer);
        let source = source().build().unwrap();
        let error = source.fetch(TokenRequest::new()).await.unwrap_err();
        watch.error(&error);
    }
    learn(&watch, &idp);
    watch.end();
}

/// Metadata with secrets in its members, and failing requests for it.
#[tokio::test]
async fn p55_discovery_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let builder = MockIdp::builder().client(ClientId.text(), ClientSecret.text());
    let idp = builder.start().await.unwrap();
    let with_userinfo = idp
        .token_url()
        .replace("://", &format!("://u:{}@", Userinfo.text()));
    for (member, value) in [
        (
            "service_documentation",
            json!(crate::support::canary::rig::echo()),
        ),
        ("token_endpoint", json!(with_userinfo)),
        ("token_endpoint", json!(crate::support::canary::rig::echo())),
        ("issuer", json!(with_userinfo)),
        (
            "token_endpoint_auth_methods_supported",
            json!([crate::support::canary::rig::echo()]),
        ),
        (
            "token_endpoint_auth_methods_supported",
            json!(crate::support::canary::rig::echo()),
        ),
    ] {
        idp.set_metadata(member, value.clone());
        let source =
            ClientCredentials::discover(idp.issuer(), ClientId.text(), ClientSecret.text());
        watch.debug(&source);
        let failed = ask(&watch, source.build().unwrap()).await.is_some();
        assert_eq!(
            failed,
            member != "service_documentation",
            "{member}: {value}"
        );
        idp.set_metadata("token_endpoint", json!(idp.token_url()));
        idp.set_metadata("issuer", json!(idp.issuer()));
    }
    for (_, answer) in echoes() {
        idp.always(answer);
        let source =
            ClientCredentials::discover(idp.issuer(), ClientId.text(), ClientSecret.text());
        assert!(ask(&watch, source.build().unwrap()).await.is_some());
    }
    watch.end();
}

/// No server listens, or the server does not answer.
#[tokio::test]
async fn p55_unreachable_or_silent_server_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let (closed, _port) = closed_port();
    for http2 in [None, Some(false), Some(true)] {
        for url in [
            closed.clone() + "/token",
            "https://canary.invalid/token".to_owned(),
        ] {
            let source = credentials(format!("{url}?account={}", Query.text()));
            let source = match http2 {
                None => source,
                Some(http2) => source.http_client(tower(http2)),
            };
            assert!(ask(&watch, source.build().unwrap()).await.is_some());
        }
    }
    idp.always(Answer::silence());
    let url = format!("{}?account={}", idp.token_url(), Query.text());
    let cache = TokenCache::builder(credentials(url).build().unwrap());
    let cache = cache
        .on_event(Watch::event)
        .fetch_timeout(Duration::from_millis(100));
    let error = cache.build().token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    watch.error(&error);
    watch.end();
}
