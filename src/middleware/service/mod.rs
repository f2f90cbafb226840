//! [`BearerAuth`]: the request path.
//!
//! ```text
//!            ┌─ another target, or the caller's own header ──► Pass ──► response
//! call ──────┼─ a cached token ───────────► Send ──► response
//!            └─ else ──► Read ─► Acquire ─► Ready ─► Send ──► response
//!                                             ▲       │ 401
//!                                             └─ Renew ◄┘ once
//! ```
//!
//! Invariants:
//! - With a cached token, `call` calls the inner service, on the instance whose readiness was polled. It
//!   boxes nothing, takes no lock, and changes no reference count that another thread changes
//!   ([`PerCore`](crate::per_core::PerCore)).
//! - A call that has to wait, or fails without being sent, first releases that instance, and with it any
//!   permit. After the wait it polls a clone.
//! - The header is written when the service is ready, with the token of that moment.
//! - Readiness is the inner service's: it never waits for a token, and never fails without one.
//! - A 401 is kept, body unread, until it is clear whether the request is sent again. It is dropped before
//!   the readiness for that is polled. A request is sent at most twice.

mod steps;

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use self::steps::{Again, State, StateProj, Waiting, advance, rejected};
use super::{
    decide::{Core, Prepared, Sent, SharedCore},
    http_types::{HttpRequest, HttpResponse},
    resend::{InMemory, Replay},
    service_error::ServiceError,
};
use crate::{error::Error, per_core::CacheAligned};

/// The service of a [`BearerAuthLayer`](crate::BearerAuthLayer).
#[derive(Clone)]
pub struct BearerAuth<S, P = InMemory> {
    inner: S,
    core: SharedCore,
    resend: P,
}

impl<S, P> BearerAuth<S, P> {
    pub(super) fn new(inner: S, core: SharedCore, resend: P) -> Self {
        Self {
            inner,
            core,
            resend,
        }
    }

    /// Returns a reference to the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug, P: fmt::Debug> fmt::Debug for BearerAuth<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { cache, rules } = &self.core.first().0;
        f.debug_struct("BearerAuth")
            .field("inner", &self.inner)
            .field("cache", cache)
            .field("rules", rules)
            .field("resend", &self.resend)
            .finish()
    }
}

impl<S, P, R> Service<R> for BearerAuth<S, P>
where
    S: Service<R> + Clone,
    S::Response: HttpResponse,
    R: HttpRequest,
    P: Replay<R>,
{
    type Response = S::Response;
    type Error = ServiceError<S::Error>;
    type Future = ResponseFuture<S, R, P>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(ServiceError::Inner)
    }

    #[inline]
    fn call(&mut self, mut request: R) -> Self::Future {
        let core = Arc::clone(self.core.mine());
        let mut copy = None;
        let state = match core.0.prepare(&self.resend, &mut request, &mut copy) {
            Prepared::Send(token) => {
                let again = copy.map(|copy| Again {
                    service: self.inner.clone(),
                    copy,
                });
                let sent = Some(Sent::new(token, &request, again));
                State::Send {
                    future: self.inner.call(request),
                    sent,
                }
            }
            Prepared::Pass => State::Pass {
                future: self.inner.call(request),
                second: false,
            },
            Prepared::Wait(pending) => {
                let waiting = Waiting {
                    service: self.release_ready(),
                    request,
                    again: copy,
                    rejected: None,
                };
                State::wait(&core.0, pending, Box::new(waiting))
            }
            Prepared::Read(later) => State::Read {
                read: self.resend.read(request, later),
                service: Some(self.release_ready()),
            },
            Prepared::Refuse(error) => self.fail(error),
        };
        ResponseFuture { state, core }
    }
}

impl<S: Clone, P> BearerAuth<S, P> {
    /// Fails a request without sending it, and releases what was reserved for it.
    #[cold]
    fn fail<R>(&mut self, error: Error) -> State<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        self.inner = self.inner.clone();
        State::Failed { error: Some(error) }
    }

    /// Releases the instance whose readiness was polled, with what it has reserved. Returns a clone.
    fn release_ready(&mut self) -> S {
        let unpolled = self.inner.clone();
        self.inner = unpolled.clone();
        unpolled
    }
}

pin_project! {
    /// The response of a [`BearerAuth`].
    pub struct ResponseFuture<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        #[pin]
        state: State<S, R, P>,
        core: Arc<CacheAligned<Core>>,
    }
}

impl<S: Service<R>, R: HttpRequest, P: Replay<R>> fmt::Debug for ResponseFuture<S, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<S, R, P> Future for ResponseFuture<S, R, P>
where
    S: Service<R> + Clone,
    S::Response: HttpResponse,
    R: HttpRequest,
    P: Replay<R>,
{
    type Output = Result<S::Response, ServiceError<S::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = &this.core.0;
        loop {
            // Nearly all requests take this branch. The others are out of line, to keep it fast.
            let StateProj::Send { future, sent } = this.state.as_mut().project() else {
                match ready!(advance(this.state.as_mut(), core, cx))? {
                    ControlFlow::Continue(next) => this.state.set(next),
                    ControlFlow::Break(response) => return Poll::Ready(Ok(response)),
                }
                continue;
            };
            let (response, sent) = match ready!(future.poll(cx)) {
                Ok(response) if core.rejects(sent.as_ref(), &response) => (response, sent.take()),
                result => return Poll::Ready(result.map_err(ServiceError::Inner)),
            };
            let Some(sent) = sent else {
                return Poll::Ready(Ok(response));
            };
            match rejected(core, sent, response) {
                ControlFlow::Continue(next) => this.state.set(next),
                ControlFlow::Break(response) => return Poll::Ready(Ok(response)),
            }
        }
    }
}
