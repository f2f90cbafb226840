//! [`BearerAuth`]: the way of a request.
//!
//! ```text
//!            ┌─ not for us, or the caller's own header ──► Pass ──► response
//! call ──────┼─ a token in hand ───────────► Send ──► response
//!            └─ else ─► Prepare ─► Acquire ─► Ready ─► Send ──► response
//!                                               ▲       │ 401
//!                                               └─ Renew ◄┘ once
//! ```
//!
//! Invariants. With a token in hand the inner service is called within `call`, on the instance
//! whose readiness was polled; nothing is boxed. A call that has to wait gives that instance up
//! first, so that it holds nobody's permit while it waits, and polls a clone when its time has
//! come; a call that fails without being sent gives it up too. The header is written when the
//! service is ready, with the token of that moment. Readiness is the inner service's: it never
//! waits for a token, and never fails for want of one. A 401 is kept, body untouched, until it is
//! clear whether a second try is made, and is gone before the second try asks for readiness. There
//! is no third try.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    AccessToken, BearerAuthLayer, Error, ErrorKind, ServiceError,
    api::Admission,
    attempt::{Judgement, authorize},
    cache::Acquire,
    error::Retry,
    message::{HttpRequest, HttpResponse, sealed::Origin as _},
    resend::{
        InMemory, Replay,
        sealed::{Preparation, Prepared},
    },
};

/// The service of a [`BearerAuthLayer`].
#[derive(Clone, Debug)]
pub struct BearerAuth<S, P = InMemory> {
    inner: S,
    layer: BearerAuthLayer<P>,
}

impl<S, P> BearerAuth<S, P> {
    pub(crate) fn new(inner: S, layer: BearerAuthLayer<P>) -> Self {
        Self { inner, layer }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
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
    fn call(&mut self, request: R) -> Self::Future {
        let state = match self.layer.rules().admit(&request) {
            Admission::Allowed => self.start(request),
            Admission::Elsewhere => State::Pass {
                future: self.inner.call(request),
            },
            Admission::Refused(error) => self.fail(error),
        };
        ResponseFuture {
            state,
            layer: self.layer.clone(),
        }
    }
}

impl<S, P> BearerAuth<S, P> {
    #[inline]
    fn start<R>(&mut self, request: R) -> State<S, R, P>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        P: Replay<R>,
    {
        if self.layer.is_authorized(request.headers()) {
            return State::Pass {
                future: self.inner.call(request),
            };
        }
        let Prepared { mut request, again } = match self.layer.policy().prepare(request) {
            Preparation::Done(prepared) => prepared,
            Preparation::Pending(prepare) => {
                return State::Prepare {
                    prepare,
                    service: Some(self.stand_back()),
                };
            }
        };
        match self.layer.cache().acquire(again.is_some()) {
            Acquire::Now(token) => match authorize(request.headers_mut(), &token) {
                Ok(true) => {
                    let again = again.map(|request| Again {
                        service: self.inner.clone(),
                        request,
                    });
                    let origin = request.origin();
                    State::Send {
                        future: self.inner.call(request),
                        sent: Some(Sent {
                            token,
                            origin,
                            again,
                        }),
                    }
                }
                Ok(false) => State::Pass {
                    future: self.inner.call(request),
                },
                Err(error) => self.fail(error),
            },
            Acquire::Fail(error) => self.fail(error),
            Acquire::Wait(waiting) => {
                let cache = self.layer.cache().clone();
                let can_resend = again.is_some();
                State::Acquire {
                    token: Box::pin(async move { cache.wait(waiting, can_resend).await }),
                    waiting: Some(Waiting {
                        service: self.stand_back(),
                        request,
                        again,
                        second: false,
                    }),
                }
            }
        }
    }

    /// The request is not sent: nothing stays reserved for it.
    #[cold]
    fn fail<R>(&mut self, error: Error) -> State<S, R, P>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        P: Replay<R>,
    {
        self.inner = self.inner.clone();
        State::Failed { error: Some(error) }
    }

    /// Gives up the instance whose readiness was polled, and whatever it reserved with that.
    fn stand_back(&mut self) -> S
    where
        S: Clone,
    {
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
        layer: BearerAuthLayer<P>,
    }
}

impl<S: Service<R>, R: HttpRequest, P: Replay<R>> std::fmt::Debug for ResponseFuture<S, R, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseFuture")
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        // Not our business, or the second try: the answer is the caller's.
        Pass {
            #[pin]
            future: S::Future,
        },
        // The body is read into memory.
        Prepare {
            #[pin]
            prepare: P::Prepare,
            service: Option<S>,
        },
        // Waiting for a token.
        Acquire {
            token: Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>,
            waiting: Option<Waiting<S, R>>,
        },
        // There is a token: waiting for the service to be ready.
        Ready {
            waiting: Option<Waiting<S, R>>,
            acquired: Acquired,
        },
        // Sent, with a token of ours.
        Send {
            #[pin]
            future: S::Future,
            sent: Option<Sent<S, R>>,
        },
        // The API has refused the token, and the request can be sent again.
        Renew {
            renewed: Pin<Box<dyn Future<Output = Option<AccessToken>> + Send>>,
            refused: Option<Refused<S, R, S::Response>>,
        },
        // Never sent.
        Failed {
            error: Option<Error>,
        },
    }
}

/// A request without its token, and the service it will go to.
struct Waiting<S, R> {
    service: S,
    request: R,
    again: Option<R>,
    /// It has been sent before.
    second: bool,
}

/// A token, before the service is ready.
struct Acquired {
    token: AccessToken,
    /// It was over when it came, and serves those who waited for it all the same.
    over: bool,
}

struct Sent<S, R: HttpRequest> {
    token: AccessToken,
    /// Where it was sent: only an answer from there is about the token.
    origin: R::Origin,
    again: Option<Again<S, R>>,
}

struct Again<S, R> {
    service: S,
    request: R,
}

struct Refused<S, R, T> {
    response: T,
    again: Again<S, R>,
}

impl<S, R, P> Future for ResponseFuture<S, R, P>
where
    S: Service<R> + Clone,
    S::Response: HttpResponse,
    R: HttpRequest,
    P: Replay<R>,
{
    type Output = Result<S::Response, ServiceError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let layer = this.layer;
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Pass { future } => {
                    return future.poll(cx).map_err(ServiceError::Inner);
                }
                StateProj::Prepare { prepare, service } => {
                    let prepared = ready!(prepare.poll(cx)).map_err(ServiceError::Token)?;
                    match service.take() {
                        Some(service) => {
                            let Prepared { request, again } = prepared;
                            acquire(
                                layer,
                                Waiting {
                                    service,
                                    request,
                                    again,
                                    second: false,
                                },
                            )
                        }
                        None => completed(),
                    }
                }
                StateProj::Acquire { token, waiting } => {
                    let token = ready!(token.as_mut().poll(cx)).map_err(ServiceError::Token)?;
                    acquired(layer, waiting.take(), token)
                }
                StateProj::Ready { waiting, acquired } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.service.poll_ready(cx)).map_err(ServiceError::Inner)?;
                    }
                    match waiting.take() {
                        Some(waiting) => send(layer, waiting, acquired),
                        None => completed(),
                    }
                }
                StateProj::Send { future, sent } => {
                    let response = ready!(future.poll(cx)).map_err(ServiceError::Inner)?;
                    let Some(Sent {
                        token,
                        origin,
                        again,
                    }) = sent.take()
                    else {
                        return Poll::Ready(Ok(response));
                    };
                    if !origin.answered(&response) {
                        return Poll::Ready(Ok(response));
                    }
                    match (layer.rules().judge(&response, &token), again) {
                        (Judgement::Pass, _) => return Poll::Ready(Ok(response)),
                        (Judgement::Renew, None) => {
                            layer.cache().reject(&token);
                            return Poll::Ready(Ok(response));
                        }
                        (Judgement::Renew, Some(again)) => {
                            let cache = layer.cache().clone();
                            State::Renew {
                                renewed: Box::pin(async move { cache.renew(&token).await }),
                                refused: Some(Refused { response, again }),
                            }
                        }
                    }
                }
                StateProj::Renew { renewed, refused } => {
                    let renewed = ready!(renewed.as_mut().poll(cx));
                    match (refused.take(), renewed) {
                        (Some(Refused { response, .. }), None) => {
                            return Poll::Ready(Ok(response));
                        }
                        // The refused answer is dropped here.
                        (Some(Refused { again, .. }), Some(token)) => {
                            let Again { service, request } = again;
                            let waiting = Waiting {
                                service,
                                request,
                                again: None,
                                second: true,
                            };
                            acquired(layer, Some(waiting), token)
                        }
                        (None, _) => completed(),
                    }
                }
                StateProj::Failed { error } => {
                    let error = error.take().unwrap_or_else(polled_again);
                    return Poll::Ready(Err(ServiceError::Token(error)));
                }
            };
            this.state.set(next);
        }
    }
}

/// A request that needs a token, with a service yet to be ready.
fn acquire<S, R, P>(layer: &BearerAuthLayer<P>, waiting: Waiting<S, R>) -> State<S, R, P>
where
    S: Service<R> + Clone,
    R: HttpRequest,
    P: Replay<R>,
{
    let can_resend = waiting.again.is_some();
    match layer.cache().acquire(can_resend) {
        Acquire::Now(token) => acquired(layer, Some(waiting), token),
        Acquire::Fail(error) => State::Failed { error: Some(error) },
        Acquire::Wait(flight) => {
            let cache = layer.cache().clone();
            State::Acquire {
                token: Box::pin(async move { cache.wait(flight, can_resend).await }),
                waiting: Some(waiting),
            }
        }
    }
}

fn acquired<S, R, P>(
    layer: &BearerAuthLayer<P>,
    waiting: Option<Waiting<S, R>>,
    token: AccessToken,
) -> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    State::Ready {
        waiting,
        acquired: Acquired {
            over: layer.cache().is_over(&token),
            token,
        },
    }
}

/// The service is ready. Becoming so may have taken long: what goes out is the token of now.
fn send<S, R, P>(
    layer: &BearerAuthLayer<P>,
    mut waiting: Waiting<S, R>,
    acquired: &Acquired,
) -> State<S, R, P>
where
    S: Service<R> + Clone,
    R: HttpRequest,
    P: Replay<R>,
{
    let token = match layer.cache().in_hand() {
        Some(token) => token,
        None if acquired.over => acquired.token.clone(),
        None => {
            // It ended meanwhile: back to waiting, with nothing reserved.
            waiting.service = waiting.service.clone();
            return acquire(layer, waiting);
        }
    };
    let Waiting {
        mut service,
        mut request,
        again,
        second,
    } = waiting;
    match authorize(request.headers_mut(), &token) {
        Ok(true) if !second => {
            let again = again.map(|request| Again {
                service: service.clone(),
                request,
            });
            let origin = request.origin();
            State::Send {
                future: service.call(request),
                sent: Some(Sent {
                    token,
                    origin,
                    again,
                }),
            }
        }
        // A second refusal is final: the next request will find out whether it is the token's.
        Ok(_) => State::Pass {
            future: service.call(request),
        },
        Err(error) => State::Failed { error: Some(error) },
    }
}

/// Polled again after it was done, which no executor does.
fn completed<S, R, P>() -> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    State::Failed { error: None }
}

fn polled_again() -> Error {
    let message = "polled after completion";
    Error::build(ErrorKind::Interrupted, Retry::Never, message).done()
}
