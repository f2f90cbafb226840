//! The states of a request in flight, and the steps between them. Only [`State::Send`], which nearly all
//! requests are in, is polled in the service itself.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    cache::{Acquire, Pending, TokenCache},
    error::{Error, ErrorKind, Retry},
    middleware::{
        decide::{Core, Sent, renewed},
        http_types::{HttpRequest, HttpResponse, sealed},
        resend::{
            Replay,
            sealed::{Policy, ReadBody},
        },
        service_error::ServiceError,
    },
    token::{AccessToken, TokenId},
};

pin_project! {
    /// The state of a request.
    #[project = StateProj]
    pub(super) enum State<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        // The caller gets the response: the layer leaves this request unchanged, or has sent it again.
        Pass {
            #[pin]
            future: S::Future,
            second: bool,
        },
        // The body is read into memory.
        Read {
            #[pin]
            read: P::Read,
            service: Option<S>,
        },
        // The request waits for a token.
        Acquire {
            token: Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>,
            waiting: Option<Box<Waiting<S, R, P>>>,
        },
        // There is a token: the request waits for the service to be ready.
        Ready {
            waiting: Option<Box<Waiting<S, R, P>>>,
            acquired: Acquired,
        },
        // The request was sent with the layer's token.
        Send {
            #[pin]
            future: S::Future,
            sent: Option<SentRequest<S, R, P>>,
        },
        // The API rejected the token, and the request can be sent again.
        Renew {
            renewed: Pin<Box<dyn Future<Output = Option<AccessToken>> + Send>>,
            rejected: Option<Box<Rejected<S, S::Response, P::Copy>>>,
        },
        // The request is not sent.
        Failed {
            error: Option<Error>,
        },
    }
}

/// A request in [`State::Send`].
pub(super) type SentRequest<S, R, P> =
    Sent<<R as sealed::Request>::Origin, Again<S, <P as Policy<R>>::Copy>>;

/// A request without its token, and its service. Boxed, since it would enlarge the futures of all
/// requests, and most do not need it.
pub(super) struct Waiting<S, R, P: Replay<R>> {
    pub(super) service: S,
    pub(super) request: R,
    pub(super) again: Option<P::Copy>,
    /// The request was sent before, with this token, which the API rejected.
    pub(super) rejected: Option<TokenId>,
}

/// A token, before the service is ready.
pub(super) struct Acquired {
    token: AccessToken,
    /// The token had expired when it arrived. It still serves the callers that waited for it.
    expired: bool,
}

/// A copy of a request, and the service to send it again.
pub(super) struct Again<S, C> {
    pub(super) service: S,
    pub(super) copy: C,
}

/// A response that rejected the token.
pub(super) struct Rejected<S, T, C> {
    response: T,
    token: TokenId,
    again: Again<S, C>,
}

/// The result of a step: a response for the caller, or the next state.
pub(super) type Step<S, R, P> = ControlFlow<<S as Service<R>>::Response, State<S, R, P>>;
type Steps<S, R, P> = Poll<Result<Step<S, R, P>, ServiceError<<S as Service<R>>::Error>>>;

/// Advances any state except [`State::Send`].
#[inline(never)]
pub(super) fn advance<S, R, P>(
    state: Pin<&mut State<S, R, P>>,
    core: &Core,
    cx: &mut Context<'_>,
) -> Steps<S, R, P>
where
    S: Service<R> + Clone,
    S::Response: HttpResponse,
    R: HttpRequest,
    P: Replay<R>,
{
    let cache = &core.cache;
    let done = |response| Poll::Ready(Ok(ControlFlow::Break(response)));
    let next = match state.project() {
        StateProj::Pass { future, second } => {
            let response = ready!(future.poll(cx)).map_err(ServiceError::Inner)?;
            if *second {
                core.after_resend(&response);
            }
            return done(response);
        }
        StateProj::Read { read, service } => {
            let read = ready!(read.poll(cx)).map_err(ServiceError::Token)?;
            match service.take() {
                Some(service) => {
                    let ReadBody { request, again } = read;
                    let waiting = Waiting {
                        service,
                        request,
                        again,
                        rejected: None,
                    };
                    acquire(core, Box::new(waiting))
                }
                None => completed(),
            }
        }
        StateProj::Acquire { token, waiting } => {
            let token = ready!(token.as_mut().poll(cx)).map_err(ServiceError::Token)?;
            acquired(cache, waiting.take(), token)
        }
        StateProj::Ready { waiting, acquired } => {
            if let Some(waiting) = waiting {
                ready!(waiting.service.poll_ready(cx)).map_err(ServiceError::Inner)?;
            }
            match waiting.take() {
                Some(waiting) => send(core, waiting, acquired),
                None => completed(),
            }
        }
        StateProj::Renew { renewed, rejected } => {
            let renewed = ready!(renewed.as_mut().poll(cx));
            match (rejected.take(), renewed) {
                (Some(rejected), None) => return done(rejected.response),
                // The rejecting response is dropped here.
                (Some(rejected), Some(token)) => {
                    let Again { service, copy } = rejected.again;
                    let waiting = Waiting {
                        service,
                        request: P::restore(copy),
                        again: None,
                        rejected: Some(rejected.token),
                    };
                    acquired(cache, Some(Box::new(waiting)), token)
                }
                (None, _) => completed(),
            }
        }
        StateProj::Failed { error } => {
            let error = error.take().unwrap_or_else(polled_again);
            return Poll::Ready(Err(ServiceError::Token(error)));
        }
        // Polled by the service.
        StateProj::Send { .. } => completed(),
    };
    Poll::Ready(Ok(ControlFlow::Continue(next)))
}

/// The API rejected the token of a request.
#[cold]
pub(super) fn rejected<S, R, P>(
    core: &Core,
    sent: SentRequest<S, R, P>,
    response: S::Response,
) -> Step<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    match core.reject(sent) {
        None => ControlFlow::Break(response),
        Some((again, token)) => ControlFlow::Continue(State::Renew {
            renewed: Box::pin(renewed(core.cache.clone(), token)),
            rejected: Some(Box::new(Rejected {
                response,
                token,
                again,
            })),
        }),
    }
}

impl<S, R, P> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    pub(super) fn wait(core: &Core, pending: Pending, waiting: Box<Waiting<S, R, P>>) -> Self {
        let cache = core.cache.clone();
        let can_resend = waiting.again.is_some();
        Self::Acquire {
            token: Box::pin(async move { cache.wait(pending, can_resend).await }),
            waiting: Some(waiting),
        }
    }
}

/// Acquires a token for a request whose service is not ready yet.
fn acquire<S, R, P>(core: &Core, waiting: Box<Waiting<S, R, P>>) -> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    match core.cache.acquire(waiting.again.is_some()) {
        Acquire::Now(token) => acquired(&core.cache, Some(waiting), token),
        Acquire::Fail(error) => State::Failed { error: Some(error) },
        Acquire::Wait(pending) => State::wait(core, pending, waiting),
    }
}

fn acquired<S, R, P>(
    cache: &TokenCache,
    waiting: Option<Box<Waiting<S, R, P>>>,
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
            expired: cache.is_expired(&token),
            token,
        },
    }
}

/// Sends a request on a service that is ready. That may have taken long, so the request gets the current
/// token.
fn send<S, R, P>(
    core: &Core,
    mut waiting: Box<Waiting<S, R, P>>,
    acquired: &Acquired,
) -> State<S, R, P>
where
    S: Service<R> + Clone,
    R: HttpRequest,
    P: Replay<R>,
{
    let token = match core.cache.cached() {
        // The new token had expired on arrival, so the cache has kept the rejected one.
        Some(token) if waiting.rejected == Some(token.id()) => acquired.token.clone(),
        Some(token) => token,
        None if acquired.expired => acquired.token.clone(),
        None => {
            // The token has expired meanwhile: wait again, with nothing reserved.
            waiting.service = waiting.service.clone();
            return acquire(core, waiting);
        }
    };
    let Waiting {
        mut service,
        mut request,
        again,
        rejected,
    } = *waiting;
    match core.attach(&mut request, &token, again) {
        Ok(Some(sent)) if rejected.is_none() => {
            let sent = sent.keep(|copy| Again {
                service: service.clone(),
                copy,
            });
            State::Send {
                future: service.call(request),
                sent: Some(sent),
            }
        }
        // A second rejection is final: if the token is the cause, the next request handles it.
        Ok(_) => State::Pass {
            future: service.call(request),
            second: rejected.is_some(),
        },
        Err(error) => State::Failed { error: Some(error) },
    }
}

/// The state of a future that is polled after completion, which no executor does.
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
