//! tonic's client and server: a health service, and a client with the layer.

use std::sync::{Arc, Mutex};

use bearer_auth::{
    BearerAuth, BearerAuthLayer, Error, StaticToken, TokenCache, source_fn, testing::MockIdp,
};
use http::{HeaderMap, Uri};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;
use tower_layer::Layer as _;

#[cfg(feature = "tonic")]
use crate::support::http::closed_port;
use crate::support::http::{layer_for, numbered, soon};

type Log = Arc<Mutex<Vec<HeaderMap>>>;

/// Starts a server. Returns its URL, and the metadata of the requests that arrive.
async fn server() -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = log.clone();
    let (_, health) = tonic_health::server::health_reporter();
    let health =
        tonic::service::interceptor::InterceptedService::new(health, move |request: Request<()>| {
            let headers = request.metadata().clone().into_headers();
            seen.lock().unwrap().push(headers);
            Ok::<_, Status>(request)
        });
    let server = Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (url, log)
}

fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned())
        .unwrap()
        .connect_lazy()
}

fn authorizations(log: &Log) -> Vec<String> {
    let log = log.lock().unwrap();
    let value = |headers: &HeaderMap| match headers.get("authorization") {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => "none".to_owned(),
    };
    log.iter().map(value).collect()
}

/// A layer for the server, for requests without a host.
fn relative_to(url: &str, tokens: impl Into<TokenCache>) -> BearerAuthLayer {
    let builder = BearerAuthLayer::builder(tokens).api(url).relative_to(url);
    builder.build().unwrap()
}

#[tokio::test]
async fn channel_requests_get_the_token() {
    let (url, log) = server().await;
    let auth = BearerAuthLayer::for_api(&url, numbered()).unwrap();

    // tonic's generated clients send only paths, unless an origin is configured.
    let relative = relative_to(&url, auth.cache().clone());
    let mut client = HealthClient::new(relative.layer(channel(&url)));
    for _ in 0..2 {
        soon(client.check(HealthCheckRequest::default()))
            .await
            .unwrap();
    }
    let origin: Uri = url.parse().unwrap();
    let mut client = HealthClient::with_origin(auth.layer(channel(&url)), origin);
    soon(client.check(HealthCheckRequest::default()))
        .await
        .unwrap();
    // A stream from the server.
    let watched = soon(client.watch(HealthCheckRequest::default()))
        .await
        .unwrap();
    assert!(
        soon(watched.into_inner().message())
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(authorizations(&log), ["Bearer t-1"; 4]);
}

#[tokio::test]
async fn concurrent_calls_in_a_stack_share_one_token_request() {
    let (url, log) = server().await;
    let idp = MockIdp::start().await.unwrap();
    let auth = relative_to(&url, layer_for(&idp).cache().clone());
    let service = ServiceBuilder::new()
        .layer(auth)
        .concurrency_limit(2)
        .service(channel(&url));
    let client: HealthClient<BearerAuth<_>> = HealthClient::new(service);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.check(HealthCheckRequest::default()).await })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap().unwrap();
    }
    assert_eq!(authorizations(&log), ["Bearer token-1"; 10]);
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn own_authorization_metadata_is_left_alone() {
    let (url, log) = server().await;
    let auth = relative_to(&url, StaticToken::new("t"));
    let mut client = HealthClient::new(auth.layer(channel(&url)));
    let mut request = Request::new(HealthCheckRequest::default());
    let own = "Bearer own".parse().unwrap();
    request.metadata_mut().insert("authorization", own);
    client.check(request).await.unwrap();
    assert_eq!(authorizations(&log), ["Bearer own"]);
}

#[tokio::test]
async fn uri_without_a_host_fails_and_the_error_names_relative_to() {
    let (url, log) = server().await;
    let auth = BearerAuthLayer::for_api(&url, StaticToken::new("t")).unwrap();
    let mut client = HealthClient::new(auth.layer(channel(&url)));
    let status = client
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&status).unwrap();
    let cause = cause
        .source()
        .map_or(cause.to_string(), ToString::to_string);
    assert!(cause.contains("relative_to"), "{status:?}");
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn request_without_a_token_is_not_sent() {
    let (url, log) = server().await;
    let failing = source_fn(|_| async { Err(Error::from_source("no token today")) });
    let auth = relative_to(&url, failing);
    let mut client = HealthClient::new(auth.layer(channel(&url)));
    let status = client
        .check(HealthCheckRequest::default())
        .await
        .unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    assert!(log.lock().unwrap().is_empty());
}

#[cfg(feature = "tonic")]
#[tokio::test]
async fn unreachable_server_has_status_unavailable() {
    let (url, _held) = closed_port();
    let auth = relative_to(&url, StaticToken::new("t"));
    let mut client = HealthClient::new(auth.layer(channel(&url)));
    let status = soon(client.check(HealthCheckRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");

    // Also with layers in between, which box the error.
    let service = ServiceBuilder::new()
        .layer(auth)
        .timeout(std::time::Duration::from_secs(30))
        .service(channel(&url));
    let mut client = HealthClient::new(service);
    let status = soon(client.check(HealthCheckRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
