//! Helpers for tests with HTTP clients.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bearer_auth::{
    BearerAuthLayer, BearerAuthLayerBuilder, ClientCredentials, ClientCredentialsBuilder, SourceFn,
    TokenRequest, TokenResponse, source_fn,
    testing::{ManualClock, MockIdp},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower_service::Service;

use super::tokens::Idp;

/// Waits for a future. A deadlock panics after 30 s, instead of a hanging test.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("a deadlock")
}

/// Lets the other tasks of a `current_thread` runtime run until they wait.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Returns `http://127.0.0.1:…` of a port that refuses connections, and the bound socket, which
/// reserves the port.
pub(crate) fn closed_port() -> (String, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (format!("http://{}", socket.local_addr().unwrap()), socket)
}

pub(crate) fn credentials(idp: &MockIdp) -> ClientCredentialsBuilder {
    ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
}

/// A layer for the API of `idp`, with its tokens.
pub(crate) fn layer_for(idp: &MockIdp) -> BearerAuthLayer {
    builder_for(idp).build().unwrap()
}

/// The configuration of [`layer_for`].
pub(crate) fn builder_for(idp: &MockIdp) -> BearerAuthLayerBuilder {
    BearerAuthLayer::builder(credentials(idp).build().unwrap()).api(idp.api_url())
}

/// A reqwest client for loopback only, independent of the environment's proxies and of installed
/// certificates.
#[cfg(feature = "reqwest")]
pub(crate) fn reqwest() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    client.build().unwrap()
}

pub(crate) fn http1<B>() -> Client<HttpConnector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn http2<B>() -> Client<HttpConnector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

pub(crate) fn get<B: Default>(uri: impl AsRef<str>) -> Request<B> {
    Request::get(uri.as_ref()).body(B::default()).unwrap()
}

pub(crate) fn post<B>(uri: impl AsRef<str>, body: B) -> Request<B> {
    Request::post(uri.as_ref()).body(body).unwrap()
}

pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

/// A source of `t-1`, `t-2` …
pub(crate) fn numbered() -> Idp {
    let idp = Idp::new(&ManualClock::new());
    idp.prefix("t");
    idp
}

type Fetched = Ready<Result<TokenResponse, bearer_auth::Error>>;

/// A source that returns the closure's token.
pub(crate) fn fetching(
    make: impl Fn() -> bearer_auth::TokenResponseBuilder + Send + Sync + 'static,
) -> SourceFn<impl Fn(TokenRequest) -> Fetched + Send + Sync + 'static> {
    source_fn(move |_| ready(make().build()))
}

/// A request that reached an [`Api`].
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: http::Extensions,
    /// The number of the service instance that was called.
    pub(crate) instance: usize,
}

impl Seen {
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization")?.to_str().ok()
    }
}

/// An API as a service in this process. It must be polled ready before each call, counts its clones,
/// and answers 401 to all tokens except the accepted ones.
#[derive(Debug)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    instance: usize,
    ready: bool,
}

#[derive(Debug, Default)]
struct Shared {
    instances: AtomicUsize,
    good: Mutex<Vec<String>>,
    seen: Mutex<Vec<Seen>>,
    ready: Mutex<Vec<usize>>,
}

impl Api {
    pub(crate) fn that_accepts(good: &[&str]) -> Self {
        let api = Self {
            shared: Arc::default(),
            instance: 0,
            ready: false,
        };
        api.accept(good);
        api
    }

    pub(crate) fn accept(&self, good: &[&str]) {
        let good = good.iter().map(|token| format!("Bearer {token}")).collect();
        *self.shared.good.lock().unwrap() = good;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn authorizations(&self) -> Vec<String> {
        let value = |seen: &Seen| seen.authorization().unwrap_or("none").to_owned();
        self.seen().iter().map(value).collect()
    }

    /// The instances that were polled ready, in order.
    pub(crate) fn polled(&self) -> Vec<usize> {
        self.shared.ready.lock().unwrap().clone()
    }

    pub(crate) fn clones(&self) -> usize {
        self.shared.instances.load(Ordering::SeqCst)
    }
}

impl Clone for Api {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            instance: self.shared.instances.fetch_add(1, Ordering::SeqCst) + 1,
            ready: false,
        }
    }
}

impl<B> Service<Request<B>> for Api {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.ready {
            self.ready = true;
            self.shared.ready.lock().unwrap().push(self.instance);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        let (parts, _) = request.into_parts();
        let seen = Seen {
            method: parts.method,
            uri: parts.uri.to_string(),
            version: parts.version,
            headers: parts.headers,
            extensions: parts.extensions,
            instance: self.instance,
        };
        let good = self.shared.good.lock().unwrap();
        let status = match seen.authorization() {
            Some(value) if good.iter().any(|good| good == value) => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        };
        let mut response = Response::new(format!("{status}"));
        *response.status_mut() = status;
        self.shared.seen.lock().unwrap().push(seen);
        ready(Ok(response))
    }
}

/// The empty body of most requests.
pub(crate) type NoBody = http_body_util::Empty<Bytes>;
