//! Drives all peers in the same way, whether they give layers, headers or tokens.

use std::{
    future::{Future, poll_fn},
    hint::black_box,
    marker::PhantomData,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use http::{Request, Response};
use tokio::runtime::Handle;
use tower_service::Service;

use crate::{
    BoxError,
    stacks::{Body, Noop, request},
};

/// The number of headers in each request, without the token.
const HEADERS: usize = 4;

/// The answer of a service that does nothing, with the error type that its peer requires.
pub struct Answer<E>(PhantomData<fn() -> E>);

impl<E> Answer<E> {
    pub fn to(request: Request<Body>) -> Self {
        drop(black_box(request));
        Self(PhantomData)
    }
}

impl<E> Future for Answer<E> {
    type Output = Result<Response<()>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(())))
    }
}

/// Something that sends requests with a token on them.
pub trait Peer: Clone + Send + 'static {
    /// The type of its requests.
    type Request: Clone + Send + 'static;

    /// The request that is sent repeatedly.
    fn request(&self) -> Self::Request;

    /// Sends it to a service that does nothing.
    fn send(&mut self, request: Self::Request)
    -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// A peer that is a tower service.
#[derive(Clone)]
pub struct Tower<S>(pub S);

impl<S, R> Peer for Tower<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Request = Request<Body>;

    fn request(&self) -> Self::Request {
        request(HEADERS)
    }

    #[inline]
    fn send(
        &mut self,
        request: Self::Request,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.0.poll_ready(&mut cx).is_ready(), "always ready");
        let answer = self.0.call(request);
        async move {
            drop(black_box(answer.await.map_err(Into::into)?));
            Ok(())
        }
    }
}

/// A peer that is asked for a token, or for a header, before each request.
pub trait Asked: Clone + Send + Sync + 'static {
    /// Gets the token or header, and sets it on the request, as its users would.
    fn put(&self, request: &mut Request<Body>)
    -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Reports the answer to the peer, where its documentation requires that.
    fn answered(&self, _response: &Response<()>) {}
}

/// The user of such a peer.
#[derive(Clone)]
pub struct Puts<P>(pub P);

impl<P: Asked> Peer for Puts<P> {
    type Request = Request<Body>;

    fn request(&self) -> Self::Request {
        request(HEADERS)
    }

    #[inline]
    async fn send(&mut self, mut request: Self::Request) -> Result<(), BoxError> {
        self.0.put(&mut request).await?;
        let response = Noop.call(request).await?;
        self.0.answered(black_box(&response));
        Ok(())
    }
}

/// One request, with its result and the time that it waited.
pub type Sent = Pin<Box<dyn Future<Output = (Result<(), BoxError>, Duration)> + Send>>;
/// Sends this many requests, one after the other.
pub type Worker = Box<dyn FnMut(u64) + Send>;

/// Any [`Peer`].
pub trait AnyPeer: Send {
    /// For a thread of its own, over the same token as all others.
    fn worker(&self) -> Worker;

    /// Sends one request. Its wait is zero if it completed at the first poll.
    fn send_one(&self) -> Sent;
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<P: Peer> AnyPeer for P {
    fn worker(&self) -> Worker {
        let mut peer = self.clone();
        let request = peer.request();
        let runtime = Handle::current();
        Box::new(move |times| {
            // Some peers create a timer for each request, which needs a runtime.
            let _runtime = runtime.enter();
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut cx = Context::from_waker(&waker);
            for _ in 0..times {
                let mut sending = pin!(peer.send(black_box(&request).clone()));
                loop {
                    match sending.as_mut().poll(&mut cx) {
                        Poll::Ready(Ok(())) => break,
                        Poll::Ready(Err(error)) => panic!("failed with a valid token: {error}"),
                        // Waits for a lock of another thread.
                        Poll::Pending => thread::park(),
                    }
                }
            }
        })
    }

    fn send_one(&self) -> Sent {
        let mut peer = self.clone();
        Box::pin(async move {
            let request = peer.request();
            let mut sending = pin!(peer.send(request));
            let start = Instant::now();
            let mut waited = false;
            let result = poll_fn(|cx| {
                let poll = sending.as_mut().poll(cx);
                waited |= poll.is_pending();
                poll
            })
            .await;
            // Time in which another process had the processor does not count.
            let wait = if waited {
                start.elapsed()
            } else {
                Duration::ZERO
            };
            (result, wait)
        })
    }
}
