//! The services that are compared, and how they are driven.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bearer_auth::{BearerAuth, BearerAuthLayer, TokenCache, TokenResponse, resend::Off, source_fn};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower_http::auth::{AddAuthorization, AddAuthorizationLayer};
use tower_layer::Layer as _;
use tower_service::Service;

pub type Body = Empty<Bytes>;

/// A service that only answers, at once.
#[derive(Clone, Copy, Debug)]
pub struct Noop;

impl<B> Service<Request<B>> for Noop {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Answer;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Answer {
        drop(black_box(request));
        Answer
    }
}

/// Creates the response when it is polled, as clients do.
#[derive(Debug)]
pub struct Answer;

impl Future for Answer {
    type Output = Result<Response<()>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(())))
    }
}

pub const API: &str = "https://api.example.com/v1";

/// A token of `length` characters.
pub fn token(length: usize) -> String {
    "t0k3n".chars().cycle().take(length).collect()
}

/// A new token each time, since a cache does not accept the same token as a new one.
pub fn new_token(length: usize) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = format!("{:08}", COUNT.fetch_add(1, Ordering::Relaxed));
    number + &token(length - 8)
}

/// The floor: the same header on each request, without any knowledge of expiry.
pub fn floor(length: usize) -> AddAuthorization<Noop> {
    AddAuthorizationLayer::bearer(&token(length))
        .as_sensitive(true)
        .layer(Noop)
}

/// The layer, with a token that lives for an hour.
pub fn layer(length: usize) -> BearerAuthLayer {
    BearerAuthLayer::for_api(API, cache(length)).unwrap()
}

/// The layered service without resending.
pub fn ours(length: usize) -> BearerAuth<Noop, Off> {
    BearerAuthLayer::builder(cache(length))
        .api(API)
        .resend(Off)
        .build()
        .unwrap()
        .layer(Noop)
}

/// A request with `headers` headers, in memory that no other thread uses.
pub fn request(headers: usize) -> Request<Body> {
    let known = [
        ("accept", "application/json"),
        ("user-agent", "bench/1.0"),
        ("x-request-id", "0d9a4ad0-7b5c-4c8a-8f43-9e2f1c1d7e55"),
        ("accept-encoding", "gzip, br"),
    ];
    let uri = format!("{API}/items/42?expand=all");
    let mut request = Request::get(uri);
    for (name, value) in known.iter().take(headers) {
        request = request.header(*name, *value);
    }
    request.body(Body::new()).unwrap()
}

/// Sends copies of `request` one after the other.
#[inline]
pub fn drive<S>(service: &mut S, request: &Request<Body>, times: u64)
where
    S: Service<Request<Body>>,
{
    drive_keeping(service, request, times, |_| ());
}

/// Like `drive`, and also copies and drops each request: the least cost of a service that can resend.
#[inline]
pub fn drive_with_a_copy<S>(service: &mut S, request: &Request<Body>, times: u64)
where
    S: Service<Request<Body>>,
{
    drive_keeping(service, request, times, Request::clone);
}

#[inline(always)]
fn drive_keeping<S, K>(
    service: &mut S,
    request: &Request<Body>,
    times: u64,
    keep: impl Fn(&Request<Body>) -> K,
) where
    S: Service<Request<Body>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        assert!(service.poll_ready(&mut cx).is_ready(), "always ready");
        let request = black_box(request).clone();
        let kept = black_box(keep(&request));
        let future = pin!(service.call(request));
        match future.poll(&mut cx) {
            Poll::Ready(Ok(response)) => drop(black_box(response)),
            _ => unreachable!("answers at once, with success"),
        }
        drop(kept);
    }
}

/// Work for a thread: sends requests with `headers` headers through `service`.
pub fn work<S>(mut service: S, headers: usize) -> Box<dyn FnMut(u64) + Send>
where
    S: Service<Request<Body>> + Send + 'static,
{
    let request = request(headers);
    Box::new(move |times| drive(&mut service, &request, times))
}

/// Like `work`, and also copies each request.
pub fn work_with_a_copy<S>(mut service: S, headers: usize) -> Box<dyn FnMut(u64) + Send>
where
    S: Service<Request<Body>> + Send + 'static,
{
    let request = request(headers);
    Box::new(move |times| drive_with_a_copy(&mut service, &request, times))
}

/// A cache with a token that lives for an hour.
fn cache(length: usize) -> TokenCache {
    let token = token(length);
    let cache = TokenCache::new(source_fn(move |_| {
        let token = token.clone();
        async move {
            let lifetime = Duration::from_secs(3_600);
            TokenResponse::builder(token).expires_in(lifetime).build()
        }
    }));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    runtime.block_on(cache.token()).unwrap();
    cache
}
