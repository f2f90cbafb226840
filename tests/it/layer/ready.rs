//! Readiness and permits: which service instance is polled, and that no request keeps a permit while
//! it waits for a token.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bearer_auth::{
    BearerAuthLayer, Error, ErrorKind, ServiceError, TokenCache,
    endpoint::TowerClient,
    resend::{Buffered, Off},
    source_fn,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_layer::Layer as _;

use crate::support::http::*;

const URI: &str = "https://api.example/x";

#[tokio::test]
async fn cached_token_calls_the_service_instance_that_was_polled() {
    let api = Api::that_accepts(&["t-1"]);
    let auth = BearerAuthLayer::builder(numbered())
        .any_api()
        .resend(Off)
        .build()
        .unwrap();
    auth.cache().token().await.unwrap();

    let mut client = auth.layer(api.clone());
    let polled_instance = client.get_ref().clone().clones(); // Any clone knows the count.
    for _ in 0..3 {
        let client = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
        client.call(get::<()>(URI)).await.unwrap();
    }
    let instances: Vec<_> = api.seen().iter().map(|seen| seen.instance).collect();
    assert_eq!(instances, api.polled());
    assert_eq!(api.clones(), polled_instance, "no clone on the fast path");

    // For a request that can be resent, the layer makes exactly one clone.
    let auth = BearerAuthLayer::builder(auth.cache().clone())
        .any_api()
        .build()
        .unwrap();
    let mut client = auth.layer(api.clone());
    let before = api.clones();
    let client = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
    client.call(get::<()>(URI)).await.unwrap();
    assert_eq!(api.clones(), before + 1);
    let instances: Vec<_> = api.seen().iter().map(|seen| seen.instance).collect();
    assert_eq!(instances, api.polled());
}

#[tokio::test]
async fn resend_polls_its_own_clone() {
    let api = Api::that_accepts(&["t-2"]);
    let auth = BearerAuthLayer::builder(numbered())
        .any_api()
        .build()
        .unwrap();
    let mut client = auth.layer(api.clone());
    for _ in 0..2 {
        // Without a token, and with one.
        api.accept(&["t-2"]);
        let ready = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
        assert_eq!(ready.call(get::<()>(URI)).await.unwrap().status(), 200);
    }
    assert_eq!(
        api.authorizations(),
        ["Bearer t-1", "Bearer t-2", "Bearer t-2"]
    );
    let called: Vec<_> = api.seen().iter().map(|seen| seen.instance).collect();
    // The first instance was polled, and dropped to wait for the token.
    assert_eq!(api.polled()[1..], called);
}

/// A body that sets a flag when it is dropped.
struct NotesDrop(Arc<AtomicBool>);

impl Drop for NotesDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn first_401_is_dropped_before_the_resend_polls_readiness() {
    #[derive(Clone)]
    struct OneAtATime {
        dropped: Arc<AtomicBool>,
    }

    impl Service<Request<()>> for OneAtATime {
        type Response = Response<NotesDrop>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<NotesDrop>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            assert!(
                self.dropped.load(Ordering::SeqCst),
                "the previous response is alive"
            );
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            self.dropped.store(false, Ordering::SeqCst);
            let mut response = Response::new(NotesDrop(self.dropped.clone()));
            if request.headers()["authorization"] == "Bearer t-1" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok(response))
        }
    }

    let dropped = Arc::new(AtomicBool::new(true));
    let service = OneAtATime {
        dropped: dropped.clone(),
    };
    let client = BearerAuthLayer::builder(numbered())
        .any_api()
        .build()
        .unwrap()
        .layer(service);
    let response = client.oneshot(get::<()>(URI)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn waiting_for_a_token_keeps_no_permit() {
    let idp = MockIdp::start().await.unwrap();
    let elsewhere = MockIdp::start().await.unwrap();
    let mut client = layer_for(&idp).layer(
        ServiceBuilder::new()
            .concurrency_limit(1)
            .service(http1::<NoBody>()),
    );
    let hold = idp.hold();
    let ready = client.ready().await.unwrap();
    let waiting = tokio::spawn(ready.call(get(idp.api_url())));
    soon(idp.token_requests_reach(1)).await;

    // The permit is free for the same instance and for a clone.
    let passes = client.ready().await.unwrap().call(get(elsewhere.api_url()));
    assert_eq!(soon(passes).await.unwrap().status(), 401);
    let passes = client.clone().oneshot(get(elsewhere.api_url()));
    assert_eq!(soon(passes).await.unwrap().status(), 401);
    assert!(!waiting.is_finished());

    hold.release();
    assert_eq!(soon(waiting).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn token_request_through_the_same_stack_with_one_permit_does_not_deadlock() {
    let idp = MockIdp::start().await.unwrap();
    let one = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(http1::<Full<Bytes>>());
    let source = credentials(&idp).http_client(TowerClient::new(one.clone()));
    let auth = BearerAuthLayer::for_api(idp.api_url(), source.build().unwrap()).unwrap();
    let mut client = auth.layer(one);
    for revoked in ["none", "token-1"] {
        idp.revoke(revoked);
        let ready = client.ready().await.unwrap();
        let response = soon(ready.call(get(idp.api_url()))).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    // Also while a body is buffered, and when only the resend waits.
    type Body = UnsyncBoxBody<Bytes, Infallible>;
    let one = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(http1::<Body>());
    let boxed: fn(Bytes) -> Body = |bytes| UnsyncBoxBody::new(Full::new(bytes));
    let into_body = tower::util::MapRequest::new(one.clone(), move |request: Request<_>| {
        request.map(|full: Full<Bytes>| UnsyncBoxBody::new(full))
    });
    let source = credentials(&idp).http_client(TowerClient::new(into_body));
    let auth = BearerAuthLayer::builder(source.build().unwrap())
        .api(idp.api_url())
        .resend(Buffered::new(16, boxed))
        .build()
        .unwrap();
    let mut client = auth.layer(one);
    for _ in 0..2 {
        idp.revoke_all();
        let ready = client.ready().await.unwrap();
        let request = post(idp.api_url(), boxed(Bytes::from("x")));
        assert_eq!(soon(ready.call(request)).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn resend_waits_for_a_permit() {
    let idp = MockIdp::start().await.unwrap();
    idp.api_answers("/api/silent", Answer::silence());
    let auth = layer_for(&idp);
    auth.cache().token().await.unwrap();
    idp.revoke("token-1");
    let one = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(http1::<NoBody>());
    let hold = idp.hold();
    let rejected = tokio::spawn(auth.layer(one.clone()).oneshot(get(idp.api_url())));
    soon(idp.token_requests_reach(2)).await;
    // Another request has taken the permit in the meantime.
    let silent = tokio::spawn(one.oneshot(get(idp.api_url() + "silent")));
    soon(idp.api_requests_reach(2)).await;
    hold.release();
    soon(auth.cache().refresh()).await.unwrap();
    settle().await;
    assert!(!rejected.is_finished());
    assert_eq!(idp.api_requests(), 2);
    silent.abort();
    assert_eq!(soon(rejected).await.unwrap().unwrap().status(), 200);
    assert_eq!(idp.api_requests(), 3);
}

#[tokio::test]
async fn request_that_fails_without_a_token_releases_its_permit() {
    let failing = || source_fn(|_| async { Err(Error::from_source("no token today")) });
    let one = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(Api::that_accepts(&[]));

    let auth = BearerAuthLayer::for_api("https://api.example/", failing()).unwrap();
    let mut client = auth.layer(one.clone());
    for _ in 0..2 {
        // The first call waits; the second fails at once, in the backoff.
        let ready = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
        let error = ready.call(get::<()>(URI)).await.unwrap_err();
        assert_eq!(error.token_error().unwrap().kind(), ErrorKind::Source);
        let other = one.clone().oneshot(get::<()>("https://h/"));
        soon(other).await.unwrap();
    }

    // Also a request that is refused for its target.
    let ready = ServiceExt::<Request<()>>::ready(&mut client).await.unwrap();
    let error = ready.call(get::<()>("/relative")).await.unwrap_err();
    assert_eq!(error.token_error().unwrap().kind(), ErrorKind::Target);
    soon(one.clone().oneshot(get::<()>("https://h/")))
        .await
        .unwrap();
}

#[tokio::test]
async fn token_error_does_not_close_a_buffer() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::oauth_error("invalid_client"));
    let auth = layer_for(&idp);
    let client = ServiceBuilder::new()
        .buffer(2)
        .layer(auth.clone())
        .concurrency_limit(1)
        .service(http1::<NoBody>());
    for _ in 0..5 {
        let error = client
            .clone()
            .oneshot(get(idp.api_url()))
            .await
            .unwrap_err();
        let error = error
            .downcast::<ServiceError<hyper_util::client::legacy::Error>>()
            .unwrap();
        assert_eq!(error.token_error().unwrap().kind(), ErrorKind::OAuth);
    }
    let relative = client.clone().oneshot(get("/relative")).await.unwrap_err();
    assert!(relative.is::<ServiceError<hyper_util::client::legacy::Error>>());
    assert_eq!(idp.token_requests(), 1);
    idp.recover();
    auth.cache().refresh().await.unwrap();
    let response = soon(client.oneshot(get(idp.api_url()))).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn readiness_does_not_wait_for_a_token() {
    let never = || source_fn(|_| std::future::pending());
    let mut client = BearerAuthLayer::builder(never())
        .any_api()
        .build()
        .unwrap()
        .layer(Api::that_accepts(&[]));
    soon(ServiceExt::<Request<()>>::ready(&mut client))
        .await
        .unwrap();

    // A buffer accepts requests while earlier ones wait for a token.
    let auth = BearerAuthLayer::for_api("https://api.example/", never()).unwrap();
    let client = ServiceBuilder::new()
        .buffer::<Request<()>>(1)
        .layer(auth)
        .concurrency_limit(1)
        .service(Api::that_accepts(&[]));
    let waiting: Vec<_> = (0..10)
        .map(|_| tokio::spawn(client.clone().oneshot(get::<()>(URI))))
        .collect();
    settle().await;
    let other = soon(client.oneshot(get("https://elsewhere.example/"))).await;
    assert_eq!(other.unwrap().status(), 401);
    for task in waiting {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test]
async fn readiness_error_of_the_inner_service_is_an_inner_error() {
    #[derive(Clone)]
    struct Broken;

    impl Service<Request<()>> for Broken {
        type Response = Response<()>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Response<()>, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            panic!("called although it is not ready")
        }
    }

    let cache = TokenCache::new(numbered());
    let client = BearerAuthLayer::builder(cache)
        .any_api()
        .build()
        .unwrap()
        .layer(Broken);
    let error = client.oneshot(get::<()>(URI)).await.unwrap_err();
    assert_eq!(error.into_inner(), Some("broken"));
}
