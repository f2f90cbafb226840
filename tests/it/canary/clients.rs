//! The layer over each client: what these log of a request that carries a token, and what the layer
//! says of an API that refuses it.

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
    http::nobody,
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

/// What an API says to a token that it does not want, in words that have it in them.
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
async fn p55_no_client_logs_a_token() {
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

/// A token of its own header, as some APIs have it, is as sensitive.
#[tokio::test]
async fn p55_a_token_in_another_header_is_not_logged() {
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
    // What a service below sees can be printed by it.
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
    // The service that printed has it, too.
    drop(auth);
    match watch {
        Some(watch) => watch.end(),
        None => panic!("somebody still watches"),
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
    let (nobody, _port) = nobody();
    for url in [url, nobody] {
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
                // What the API says is the caller's; what is around it is not.
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

/// Nor do redirects show anything, followed or not: neither the token nor what the server has put
/// into `Location`.
#[tokio::test]
async fn p55_redirects_are_not_logged() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let (nobody, _port) = nobody();
    let api = idp.api_url();
    let within = format!("{api}orders?code={}", Query.text());
    let elsewhere = format!("{nobody}/?code={}", Query.text());
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
                // In circles. What is reqwest's own has the URL in it.
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

/// No token goes where it may not, and the error does not say what the URL has in it.
#[tokio::test]
async fn p55_a_target_that_is_refused_is_not_shown() {
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
    let (nobody, _port) = nobody();
    let token = StaticToken::new(AccessToken.text());
    let auth = BearerAuthLayer::for_api(&nobody, token).unwrap();
    let request = |query: &str| {
        Request::get(format!("{nobody}/{query}"))
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

/// What the client below the layer says is its own: reqwest shows a request's URL in its errors,
/// query and all. A key that is in a URL of the API's is the caller's to take out
/// (`reqwest::Error::without_url`).
#[tokio::test]
async fn what_the_client_below_says_of_the_caller_s_url_is_its_own() {
    alone!();
    let watch = Watch::new().await;
    let (nobody, _port) = nobody();
    let token = StaticToken::new(AccessToken.text());
    let auth = BearerAuthLayer::for_api(&nobody, token).unwrap();
    let client = reqwest(None);
    let url = format!("{nobody}/?account={}", Query.text());
    let service = auth.layer(client.clone());
    let error = service
        .oneshot(client.get(&url).build().unwrap())
        .await
        .unwrap_err();
    shown(&watch, &error);
    // hyper-util has an URL's authority in its log; reqwest takes the userinfo out of it.
    let userinfo = nobody.replace("://", &format!("://user:{}@", Userinfo.text()));
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

/// The layer does not look at answers' bodies.
#[tokio::test]
async fn p55_an_answer_is_handed_on_unseen() {
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
