//! The layer over each HTTP client: what the clients log of a request with a token, and what the layer
//! logs when the API rejects it.

use std::{
    convert::Infallible,
    fmt::{Debug, Display},
    sync::Arc,
};

use bearer_auth::{
    BearerAuthLayer, BearerAuthLayerBuilder, BoxError, ServiceError, StaticToken, TokenCache,
    TokenResponse,
    resend::{Buffered, Off},
    source_fn,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::*,
        rig::{Tls, address, credentials, echo, idp, second_token, token},
        watch::Watch,
    },
    http::closed_port,
};

fn hyper_util(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    let mut client = Client::builder(TokioExecutor::new());
    client.http2_only(http2).build_http()
}

fn reqwest(tls: Option<&Tls>) -> reqwest::Client {
    let roots = tls.map(|tls| reqwest::Certificate::from_pem(tls.root.as_bytes()).unwrap());
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
    client.build().unwrap()
}

/// API responses that reject the token and echo it.
fn refusals() -> Vec<Answer> {
    let header = |text: &str| text.replace('"', "\\\"");
    let challenge =
        |rest: String| Answer::bytes(401, "text/plain", echo()).header("www-authenticate", &rest);
    let said = header(&AccessToken.text());
    vec![
        challenge(format!(
            "Bearer error=\"invalid_token\", error_description=\"{said}\""
        )),
        challenge(format!("Bearer realm=\"{said}\", error=\"{said}\"")),
        challenge(format!("Bearer {}", AccessToken.text())),
        challenge(format!(
            "Bearer error=\"insufficient_scope\", scope=\"{said}\""
        )),
        challenge(String::from("Digest x")).header("x-debug", &AccessToken.text()),
        Answer::status(401),
        Answer::bytes(403, "text/plain", echo()),
        Answer::bytes(500, "text/plain", echo()),
    ]
}

fn layer(idp: &MockIdp, api: &str) -> BearerAuthLayerBuilder {
    let source = credentials(idp.token_url()).build().unwrap();
    let cache = TokenCache::builder(source)
        .name("orders")
        .on_event(Watch::event);
    BearerAuthLayer::builder(cache.build())
        .api(api)
        .renew_on(|status, headers| status == 401 && !headers.contains_key("x-never"))
}

fn shown<E: Debug + Display + 'static>(watch: &Watch, error: &ServiceError<E>) {
    watch.error(error);
    if let Some(token) = error.token_error() {
        watch.error(token);
    }
}

#[tokio::test]
async fn p55_http_clients_do_not_log_the_token() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let api = idp.api_url();
    let tls_h2 = Tls::before(&watch, address(&api), b"h2", None).await;
    let tls_h1 = Tls::before(&watch, address(&api), b"http/1.1", None).await;
    for refusal in std::iter::once(None).chain(refusals().into_iter().map(Some)) {
        let answer = refusal.unwrap_or_else(|| Answer::json(200, json!({})));
        idp.api_answers("/api/", answer);
        for http2 in [false, true] {
            idp.then(token());
            idp.then(second_token());
            let auth = layer(&idp, &api).build().unwrap();
            let body = || Full::new(Bytes::from(echo()));
            let request = || {
                let request = Request::post(api.clone() + "orders").header("cookie", "x=1");
                request.body(body()).unwrap()
            };
            let service = auth.layer(hyper_util(http2));
            watch.debug(&service);
            match service.oneshot(request()).await {
                Ok(response) => watch.debug(response.status().as_str()),
                Err(error) => shown(&watch, &error),
            }
            for layer in [
                ServiceBuilder::new()
                    .layer(
                        BearerAuthLayer::builder(auth.cache().clone())
                            .api(&api)
                            .resend(Off)
                            .build()
                            .unwrap(),
                    )
                    .service(hyper_util(http2))
                    .boxed(),
                ServiceBuilder::new()
                    .layer(
                        BearerAuthLayer::builder(auth.cache().clone())
                            .api(&api)
                            .resend(Buffered::new(1 << 20, Full::<Bytes>::new))
                            .build()
                            .unwrap(),
                    )
                    .service(hyper_util(http2))
                    .boxed(),
            ] {
                if let Err(error) = layer.oneshot(request()).await {
                    shown(&watch, &error);
                }
            }
            watch.debug(&auth);
            idp.recover();
            idp.always(token());
        }
        for tls in [None, Some(&tls_h2), Some(&tls_h1)] {
            let api = tls.map_or_else(|| api.clone(), |tls| tls.at(&api));
            let auth = layer(&idp, &api).build().unwrap();
            let client = reqwest(tls);
            let request = || {
                client
                    .post(api.clone() + "orders")
                    .body(echo())
                    .build()
                    .unwrap()
            };
            let service = auth.layer(client.clone());
            watch.debug(&service);
            match service.oneshot(request()).await {
                Ok(response) => watch.debug(response.status().as_str()),
                Err(error) => shown(&watch, &error),
            }
            let middleware = reqwest_middleware::ClientBuilder::new(client.clone());
            let middleware = middleware.with(auth.clone()).build();
            watch.debug(&middleware);
            if let Err(error) = middleware.execute(request()).await {
                watch.error(&error);
            }
            watch.debug(&auth);
        }
    }
    let tokens = idp.api_log();
    let bearer = format!("Bearer {}", AccessToken.text());
    assert!(
        tokens
            .iter()
            .filter(|r| r.header("authorization") == Some(&bearer))
            .count()
            > 50
    );
    for request in tokens {
        watch.debug(&request);
    }
    watch.heard(&[
        "tracing h2",
        "tracing hyper_util",
        "log reqwest",
        "log rustls",
        "tracing bearer_auth",
    ]);
    watch.end();
}

/// A token in another header than `Authorization` is as sensitive.
#[tokio::test]
async fn p55_token_in_another_header_is_not_logged() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let source = source_fn(|_| async {
        let token = TokenResponse::builder(AccessToken.text()).scheme("");
        token
            .header_name(HeaderName::from_static("x-api-key"))
            .build()
    });
    let auth = BearerAuthLayer::for_api(idp.api_url(), source).unwrap();
    let request = || {
        Request::get(idp.api_url())
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    for http2 in [false, true] {
        auth.layer(hyper_util(http2))
            .oneshot(request())
            .await
            .unwrap();
    }
    // An inner service may print the request that it gets.
    let watch = Arc::new(watch);
    let below = Arc::clone(&watch);
    let printing = tower::service_fn(move |request: Request<Full<Bytes>>| {
        below.debug(&request);
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    });
    auth.layer(printing.clone())
        .oneshot(request())
        .await
        .unwrap();
    let auth =
        BearerAuthLayer::for_api(idp.api_url(), StaticToken::new(AccessToken.text())).unwrap();
    auth.layer(printing).oneshot(request()).await.unwrap();
    assert_eq!(idp.api_log().len(), 2);
    for seen in idp.api_log() {
        assert_eq!(seen.header("x-api-key"), Some(AccessToken.text().as_str()));
        watch.debug(&seen);
    }
    let watch = Arc::into_inner(watch);
    // The printing service has a clone of `watch`.
    drop(auth);
    match watch {
        Some(watch) => watch.end(),
        None => panic!("another clone of `watch` is alive"),
    }
}

#[tokio::test]
async fn p55_tonic_does_not_log_a_token() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_, health) = tonic_health::server::health_reporter();
    let refuse = |request: tonic::Request<()>| {
        assert!(request.metadata().contains_key("authorization"));
        match request.metadata().get("x-refuse") {
            None => Ok(request),
            Some(_) => Err(tonic::Status::unauthenticated(echo())),
        }
    };
    let health = tonic::service::interceptor::InterceptedService::new(health, refuse);
    let server = Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let (closed, _port) = closed_port();
    for url in [url, closed] {
        let there = Endpoint::from_shared(url.clone()).unwrap().connect_lazy();
        let auth = BearerAuthLayer::builder(credentials(idp.token_url()).build().unwrap())
            .api(&url)
            .relative_to(&url)
            .renew_on(|_, headers| headers.get("grpc-status").is_some_and(|c| c == "16"))
            .build()
            .unwrap();
        let mut client = HealthClient::new(auth.layer(there));
        watch.debug(&client);
        let mut refused = tonic::Request::new(HealthCheckRequest::default());
        refused
            .metadata_mut()
            .insert("x-refuse", "1".parse().unwrap());
        for request in [tonic::Request::new(HealthCheckRequest::default()), refused] {
            if let Err(status) = client.check(request).await {
                // The API's message is for the caller. The rest of the status must not leak.
                watch.text(
                    "status",
                    format!("{:?} {:?}", status.code(), status.metadata()),
                );
                watch.text(
                    "status",
                    format!("{:?}", std::error::Error::source(&status)),
                );
            }
        }
    }
    watch.heard(&["tracing h2", "tracing tonic"]);
    watch.end();
}

/// Redirects, followed or not, log neither the token nor the value of `Location`.
#[tokio::test]
async fn p55_redirects_are_not_logged() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let (closed, _port) = closed_port();
    let api = idp.api_url();
    let within = format!("{api}orders?code={}", Query.text());
    let elsewhere = format!("{closed}/?code={}", Query.text());
    let tls = Tls::before(&watch, address(&api), b"h2", None).await;
    for location in [within, elsewhere, format!("/api/round?{}", Query.text())] {
        idp.api_answers("/api/round", Answer::redirect(&location));
        for tls in [None, Some(&tls)] {
            let api = tls.map_or_else(|| api.clone(), |tls| tls.at(&api));
            let auth = layer(&idp, &api).build().unwrap();
            let roots = tls.map(|tls| reqwest::Certificate::from_pem(tls.root.as_bytes()).unwrap());
            let client = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
            let client = client.redirect(auth.redirect_policy()).build().unwrap();
            let request = client.get(api + "round").build().unwrap();
            match auth.layer(client).oneshot(request).await {
                Ok(answer) => watch.debug(answer.status().as_str()),
                // A redirect loop. reqwest's own error contains the URL.
                Err(ServiceError::Inner(error)) => watch.error(&error.without_url()),
                Err(error) => shown(&watch, &error),
            }
        }
    }
    let followed = idp
        .api_log()
        .iter()
        .filter(|seen| seen.target.contains(&Query.text()))
        .count();
    assert!(followed > 2, "{followed}");
    watch.heard(&["log reqwest", "tracing hyper_util", "tracing h2"]);
    watch.end();
}

/// The error about a refused target does not contain the URL.
#[tokio::test]
async fn p55_refused_target_is_not_in_the_error() {
    alone!();
    let watch = Watch::new().await;
    let auth = BearerAuthLayer::builder(StaticToken::new(AccessToken.text()))
        .any_api()
        .build()
        .unwrap();
    let answering = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    });
    for url in [
        format!(
            "http://user:{}@api.example/?account={}",
            Userinfo.text(),
            Query.text()
        ),
        format!("/orders?account={}", Query.text()),
    ] {
        let request = Request::get(url).body(Full::default()).unwrap();
        let error = auth.layer(answering).oneshot(request).await.unwrap_err();
        assert!(error.token_error().is_some());
        shown(&watch, &error);
    }
    let (closed, _port) = closed_port();
    let token = StaticToken::new(AccessToken.text());
    let auth = BearerAuthLayer::for_api(&closed, token).unwrap();
    let request = |query: &str| {
        Request::get(format!("{closed}/{query}"))
            .body(Full::default())
            .unwrap()
    };
    for http2 in [false, true] {
        let query = format!("?account={}", Query.text());
        let error = auth
            .layer(hyper_util(http2))
            .oneshot(request(&query))
            .await
            .unwrap_err();
        shown(&watch, &error);
    }
    watch.end();
}

/// A known exposure: errors of the inner client are its own, and reqwest's contain the whole URL. A
/// caller with a key in the API's URL removes it with `reqwest::Error::without_url`.
#[tokio::test]
async fn errors_of_the_inner_client_contain_the_caller_s_url() {
    alone!();
    let watch = Watch::new().await;
    let (closed, _port) = closed_port();
    let token = StaticToken::new(AccessToken.text());
    let auth = BearerAuthLayer::for_api(&closed, token).unwrap();
    let client = reqwest(None);
    let url = format!("{closed}/?account={}", Query.text());
    let service = auth.layer(client.clone());
    let error = service
        .oneshot(client.get(&url).build().unwrap())
        .await
        .unwrap_err();
    shown(&watch, &error);
    // hyper-util logs a URL's authority; reqwest removes the userinfo first.
    let userinfo = closed.replace("://", &format!("://user:{}@", Userinfo.text()));
    for http2 in [false, true] {
        let request = Request::get(&userinfo).body(Full::default()).unwrap();
        let error = auth
            .layer(hyper_util(http2))
            .oneshot(request)
            .await
            .unwrap_err();
        shown(&watch, &error);
    }
    watch.end_but(&[(Query, "of ServiceError"), (Userinfo, "tracing hyper_util")]);
}

/// The layer does not read response bodies.
#[tokio::test]
async fn p55_response_body_is_passed_on_unread() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    idp.api_answers("/api/", Answer::bytes(200, "text/plain", echo()));
    let auth = layer(&idp, &idp.api_url()).build().unwrap();
    let request = Request::get(idp.api_url()).body(Full::default()).unwrap();
    let response = auth
        .layer(hyper_util(false))
        .oneshot(request)
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, echo());
    watch.end();
}
