//! Trait bounds of the layer on services and bodies. Most of these tests only have to compile.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    mem::size_of,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bearer_auth::{
    BearerAuth, BearerAuthLayer, BearerAuthLayerBuilder, BoxError, KeepFresh, ResponseFuture,
    ServiceError, StaticToken, TokenCache,
    resend::{Buffered, InMemory, Off},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full, combinators::BoxBody};
use tower::{
    Service, ServiceExt as _, service_fn,
    util::{BoxCloneService, BoxCloneSyncService, BoxService, UnsyncBoxService},
};
use tower_layer::Layer as _;

use crate::support::http::{Api, get, numbered, post};

const URI: &str = "https://api.example/x";

fn auth() -> BearerAuthLayer {
    builder().build().unwrap()
}

fn builder() -> BearerAuthLayerBuilder {
    BearerAuthLayer::builder(StaticToken::new("t")).any_api()
}

fn is_send<T: Send>(_: &T) {}
fn is_clone_send_sync<T: Clone + Send + Sync + 'static>(_: &T) {}

/// A service that is not `Send`. Its clones share a count.
#[derive(Clone, Default)]
struct OneThread(Rc<Cell<usize>>);

impl<B: 'static> Service<Request<B>> for OneThread {
    type Response = Response<Rc<str>>;
    type Error = Rc<str>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Rc<str>>, Rc<str>>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rc<str>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let count = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            count.set(count.get() + 1);
            let rejected = request.headers()["authorization"] == "Bearer t-1";
            let mut response = Response::new(Rc::from("body"));
            if rejected {
                *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}

#[test]
fn service_that_is_not_send_works_on_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let service = OneThread::default();
        let client = BearerAuthLayer::builder(numbered())
            .any_api()
            .build()
            .unwrap()
            .layer(service.clone());
        let call = client.clone().oneshot(post(URI, ()));
        let response = tokio::task::spawn_local(call).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(service.0.get(), 2);
        // Also with a body that is not `Send`.
        let response = client.oneshot(post(URI, Rc::new(1))).await.unwrap();
        assert_eq!(&**response.body(), "body");
    });
}

#[tokio::test]
async fn body_types_need_no_traits() {
    struct NoClone(Cell<u8>);

    let api = Api::that_accepts(&["t"]);
    let client = auth().layer(api);
    macro_rules! sends {
        ($($body:expr),* $(,)?) => {$(
            let response = client.clone().oneshot(post(URI, $body)).await.unwrap();
            assert_eq!(response.status(), 200);
        )*};
    }
    sends!(
        (),
        NoClone(Cell::new(1)),
        Rc::new("x"),
        Box::new(|| 1u8) as Box<dyn Fn() -> u8>,
        vec![1u8],
        "text",
        String::new(),
        Bytes::new(),
        Empty::<Bytes>::new(),
        Full::<Bytes>::default(),
        Some(Full::<Bytes>::default()),
        BoxBody::<Bytes, Infallible>::new(Empty::new()),
    );
    assert_eq!(NoClone(Cell::new(1)).0.get(), 1);
    // With the policy `Off`, also a body that borrows.
    let text = String::from("borrowed");
    let off = builder().resend(Off).build().unwrap();
    let client = off.layer(Api::that_accepts(&["t"]));
    let response = client.oneshot(post(URI, text.as_str())).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[test]
fn service_and_futures_are_send() {
    type Boxed = BoxBody<Bytes, BoxError>;

    let service = auth().layer(Api::that_accepts(&[]));
    is_clone_send_sync(&service);
    is_clone_send_sync(&auth());
    is_clone_send_sync(&TokenCache::new(StaticToken::new("t")));
    fn guard(guard: KeepFresh) -> impl Send + Sync + 'static {
        guard
    }
    let _: fn(KeepFresh) -> _ = guard;

    let mut service = service;
    is_send(&service.call_unready(get::<()>(URI)));
    let rebuild: fn(Bytes) -> Boxed = |_| unreachable!();
    let mut service = builder()
        .resend(Buffered::new(1, rebuild))
        .build()
        .unwrap()
        .layer(Api::that_accepts(&[]));
    let body = BoxBody::new(http_body_util::BodyExt::map_err(
        Empty::new(),
        BoxError::from,
    ));
    is_send(&service.call_unready(post(URI, body)));
}

/// Names the type of the future, without a value.
trait CallUnready<R>: Service<R> {
    fn call_unready(&mut self, request: R) -> Option<Self::Future> {
        let _ = request;
        None
    }
}

impl<S: Service<R>, R> CallUnready<R> for S {}

#[tokio::test]
async fn tower_box_services_wrap_the_layer() {
    let service = || auth().layer(Api::that_accepts(&["t"]));
    let request = || get::<()>(URI);
    let sent = BoxService::new(service());
    assert_eq!(sent.oneshot(request()).await.unwrap().status(), 200);
    let cloned = BoxCloneService::new(service()).clone();
    assert_eq!(cloned.oneshot(request()).await.unwrap().status(), 200);
    let synced = BoxCloneSyncService::new(service());
    is_clone_send_sync(&synced);
    assert_eq!(synced.oneshot(request()).await.unwrap().status(), 200);
    let local = UnsyncBoxService::new(auth().layer(OneThread::default()));
    assert_eq!(local.oneshot(request()).await.unwrap().status(), 200);

    // The layer around a boxed service.
    let inner = BoxCloneService::<Request<()>, _, _>::new(Api::that_accepts(&["t"]));
    let mut around = auth().layer(inner);
    let ready = around.ready().await.unwrap();
    assert_eq!(ready.call(request()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn service_error_converts_into_a_boxed_error() {
    fn boxes(error: impl Into<BoxError>) -> BoxError {
        error.into()
    }

    // `BoxError` does not implement `Error` itself.
    let service = service_fn(|_: Request<()>| async {
        Err::<Response<()>, BoxError>(std::io::Error::other("deep").into())
    });
    let error = auth().layer(service).oneshot(get(URI)).await.unwrap_err();
    let error = boxes(error);
    assert!(error.source().unwrap().is::<std::io::Error>());
    let named: Result<(), ServiceError<&'static str>> = Err(ServiceError::Inner("text"));
    fn question(result: Result<(), ServiceError<&'static str>>) -> Result<(), BoxError> {
        Ok(result?)
    }
    assert_eq!(question(named).unwrap_err().to_string(), "text");
}

/// A client with a field of the service's type.
struct Named<P> {
    service: BearerAuth<Api, P>,
}

impl<P> Named<P>
where
    BearerAuth<Api, P>: Service<Request<()>, Response = Response<String>>,
{
    async fn status(&mut self) -> Option<u16> {
        let service = self.service.ready().await.ok()?;
        let response = service.call(get(URI)).await.ok()?;
        Some(response.status().as_u16())
    }
}

#[tokio::test]
async fn service_type_can_be_named_and_gives_its_inner_service() {
    let service = auth().layer(Api::that_accepts(&["t"]));
    let mut named = Named { service };
    assert_eq!(named.status().await, Some(200));
    assert_eq!(named.service.get_ref().seen().len(), 1);
    named.service.get_mut().accept(&["other"]);
    assert_eq!(named.status().await, Some(401));
    assert_eq!(named.service.into_inner().seen().len(), 2);
}

#[test]
fn response_future_is_no_larger_than_its_parts() {
    type Of<P> = ResponseFuture<Api, Request<Full<Bytes>>, P>;

    let request = size_of::<Request<Full<Bytes>>>();
    let service = size_of::<Api>();
    let (off, in_memory) = (size_of::<Of<Off>>(), size_of::<Of<InMemory>>());
    println!("request {request}, service {service}, off {off}, in memory {in_memory}");
    // This service's future contains the response.
    let inner = size_of::<<Api as Service<Request<Full<Bytes>>>>::Future>();
    assert!(off <= inner + 64, "{off}");
    // For the resend: a copy of the request and a clone of the service.
    assert!(in_memory <= inner + request + service + 64, "{in_memory}");
}
