//! Which requests get the token, and which headers of the caller are left alone.

use bearer_auth::{
    BearerAuthLayer, Error, ErrorKind, StaticToken, TokenResponse, source_fn,
    testing::{Answer, MockIdp},
};
use http::{HeaderName, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use crate::support::http::*;

#[tokio::test]
async fn own_bearer_token_of_the_caller_is_left_alone_and_its_401_renews_nothing() {
    let idp = MockIdp::start().await.unwrap();
    let client = layer_for(&idp).layer(http1::<NoBody>());
    let mut request = get(idp.api_url());
    let own = "Bearer the-caller's-own".parse().unwrap();
    request.headers_mut().insert("authorization", own);
    let response = client.oneshot(request).await.unwrap();
    // The caller handles the 401 of its own token.
    assert_eq!(response.status(), 401);
    assert_eq!((idp.token_requests(), idp.api_requests()), (0, 1));
    let seen = &idp.api_log()[0];
    assert_eq!(
        seen.header("authorization"),
        Some("Bearer the-caller's-own")
    );
}

const AMZ: HeaderName = HeaderName::from_static("x-amz-access-token");

#[tokio::test]
async fn token_in_a_custom_header_leaves_authorization_alone() {
    let source = || fetching(|| TokenResponse::builder("Atza|1").header_name(AMZ).scheme(""));
    let api = Api::that_accepts(&[]);
    let client = BearerAuthLayer::builder(source())
        .any_api()
        .build()
        .unwrap()
        .layer(api.clone());
    let call = |request| client.clone().oneshot(request);
    call(get::<()>("https://h/")).await.unwrap();
    // No resend after the 401: there is no other token.
    assert_eq!(api.seen().len(), 1);
    let headers = &api.seen()[0].headers;
    assert_eq!(headers["x-amz-access-token"], "Atza|1");
    assert!(headers["x-amz-access-token"].is_sensitive());
    assert!(!headers.contains_key("authorization"));

    // The caller's own value in the same header.
    let mut request = get::<()>("https://h/");
    request.headers_mut().insert(AMZ, "own".parse().unwrap());
    call(request).await.unwrap();
    let headers = &api.seen()[1].headers;
    assert_eq!(headers.get_all(AMZ).iter().collect::<Vec<_>>(), ["own"]);

    // The caller's `Authorization` stays, and the token is attached as well.
    let mut request = get::<()>("https://h/");
    let signature = "AWS4-HMAC-SHA256 Credential=x";
    request
        .headers_mut()
        .insert("authorization", signature.parse().unwrap());
    call(request).await.unwrap();
    assert_eq!(api.seen()[2].authorization(), Some(signature));
    assert_eq!(api.seen()[2].headers[AMZ], "Atza|1");
}

#[tokio::test]
async fn custom_scheme_is_sent() {
    let source = fetching(|| TokenResponse::builder("secret").scheme("GenieKey"));
    let api = Api::that_accepts(&[]);
    let client = BearerAuthLayer::builder(source)
        .any_api()
        .build()
        .unwrap()
        .layer(api.clone());
    client.oneshot(get::<()>("https://h/")).await.unwrap();
    assert_eq!(api.authorizations(), ["GenieKey secret"]);
}

#[tokio::test]
async fn request_to_another_origin_gets_no_token_and_no_token_error() {
    let idp = MockIdp::start().await.unwrap();
    let elsewhere = MockIdp::start().await.unwrap();
    idp.always(Answer::unavailable(60));
    let auth = layer_for(&idp);
    let client = auth.layer(http1::<NoBody>());
    let call = |url: String| client.clone().oneshot(get(url));
    let port = idp.api_url().rsplit(':').next().unwrap().to_owned();

    // Another port, another name of the same machine, another path.
    let response = call(elsewhere.api_url()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(elsewhere.api_log()[0].header("authorization"), None);
    assert_eq!(
        call(format!("http://localhost:{port}"))
            .await
            .unwrap()
            .status(),
        401
    );
    let origin = idp.api_url().trim_end_matches("api/").to_owned();
    assert_eq!(call(origin.clone() + "other").await.unwrap().status(), 404);
    assert_eq!(call(origin.clone() + "apiary").await.unwrap().status(), 404);
    assert_eq!(call(origin + "api/%2e%2e/x").await.unwrap().status(), 401);
    assert!(
        idp.api_log()
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
    assert_eq!(idp.token_requests(), 0);

    // The same during the backoff of a failed token request.
    assert!(call(idp.api_url()).await.is_err());
    let token_requests = idp.token_requests();
    assert_eq!(call(elsewhere.api_url()).await.unwrap().status(), 401);
    assert_eq!(idp.token_requests(), token_requests);
}

#[tokio::test]
async fn second_api_gets_the_same_token() {
    let api = Api::that_accepts(&["t-1"]);
    let source = numbered();
    let auth = BearerAuthLayer::builder(source.clone())
        .api("https://a.example/v1")
        .api("https://b.example")
        .build()
        .unwrap();
    let client = auth.layer(api.clone());
    for uri in [
        "https://a.example/v1/x",
        "https://b.example/",
        "https://a.example/v2",
    ] {
        client.clone().oneshot(get::<()>(uri)).await.unwrap();
    }
    assert_eq!(api.authorizations(), ["Bearer t-1", "Bearer t-1", "none"]);
    assert_eq!(source.issued(), 1);
}

#[tokio::test]
async fn uri_without_a_host_needs_relative_to() {
    // On hyper's own connection, which accepts only paths.
    let idp = MockIdp::start().await.unwrap();
    let authority = idp.api_url().replace("http://", "").replace("/api/", "");
    let stream = TcpStream::connect(&authority).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let send = service_fn(move |request: Request<NoBody>| sender.clone().send_request(request));
    let request = || {
        let mut request = get::<NoBody>("/api/orders");
        // The layer must not trust `Host`.
        request
            .headers_mut()
            .insert("host", authority.parse().unwrap());
        request
    };

    let auth = layer_for(&idp);
    let error = auth
        .layer(send.clone())
        .oneshot(request())
        .await
        .unwrap_err();
    let error = error.token_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("relative_to"), "{error}");
    assert_eq!((idp.token_requests(), idp.api_requests()), (0, 0));

    let auth = builder_for(&idp)
        .relative_to(format!("http://{authority}"))
        .build()
        .unwrap();
    let response = auth.layer(send).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    idp.revoke_all();
}

#[tokio::test]
async fn p70_plain_http_to_another_host_is_refused_before_connecting() {
    let api = Api::that_accepts(&["t"]);
    let auth = BearerAuthLayer::builder(StaticToken::new("t"))
        .any_api()
        .build()
        .unwrap();
    for uri in [
        "http://api.example/",
        "http://192.0.2.1/",
        "HTTP://api.example:443/",
        "ws://h/",
    ] {
        let client = auth.layer(api.clone());
        let error = client.oneshot(get::<()>(uri)).await.unwrap_err();
        assert_eq!(
            error.token_error().unwrap().kind(),
            ErrorKind::Target,
            "{uri}"
        );
    }
    assert!(api.seen().is_empty());
    let insecure = BearerAuthLayer::builder(auth.cache().clone())
        .insecure_any_api()
        .build()
        .unwrap();
    let client = insecure.layer(api.clone());
    client
        .oneshot(get::<()>("http://api.example/"))
        .await
        .unwrap();
    assert_eq!(api.authorizations(), ["Bearer t"]);

    // Loopback is allowed, and reaches the socket. (A request to 192.0.2.1 would hang.)
    let (local, _held) = closed_port();
    let error = auth
        .layer(http1::<NoBody>())
        .oneshot(get(local))
        .await
        .unwrap_err();
    assert!(error.into_inner().unwrap().is_connect());
}

#[tokio::test]
async fn c18_request_without_a_token_shows_the_source_error_and_is_not_sent() {
    let api = Api::that_accepts(&[]);
    let source = source_fn(|_| async { Err(Error::from_source("none today")) });
    let client = BearerAuthLayer::builder(source)
        .any_api()
        .build()
        .unwrap()
        .layer(api.clone());
    let error = client.oneshot(get::<()>("https://h/")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token source failed; the next attempt is in 1 s"
    );
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.is::<Error>());
    assert!(api.seen().is_empty());
}
