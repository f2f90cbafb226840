//! [`ResponseFuture`]: a request under way.

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

use super::{Core, Shared, put};
use crate::{
    cache::{Acquire, TokenCache, Waiting as Flight},
    error::{Error, ErrorKind, Retry},
    middleware::{
        decide::Judgement,
        http_types::{HttpRequest, HttpResponse, sealed::Origin as _},
        resend::{Replay, sealed::Prepared},
        service_error::ServiceError,
    },
    token::{AccessToken, TokenId},
};

pin_project! {
    /// The response of a [`BearerAuth`].
    pub struct ResponseFuture<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        #[pin]
        pub(super) state: State<S, R, P>,
        pub(super) core: Arc<Core>,
    }
}

impl<S: Service<R>, R: HttpRequest, P: Replay<R>> fmt::Debug for ResponseFuture<S, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        // Not our business, or the second try: the answer is the caller's.
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
        // Waiting for a token.
        Acquire {
            token: Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>,
            waiting: Option<Box<Waiting<S, R, P>>>,
        },
        // There is a token: waiting for the service to be ready.
        Ready {
            waiting: Option<Box<Waiting<S, R, P>>>,
            acquired: Acquired,
        },
        // Sent, with a token of ours.
        Send {
            #[pin]
            future: S::Future,
            sent: Option<Sent<S, R, P>>,
        },
        // The API has refused the token, and the request can be sent again.
        Renew {
            renewed: Pin<Box<dyn Future<Output = Option<AccessToken>> + Send>>,
            refused: Option<Box<Refused<S, S::Response, P::Copy>>>,
        },
        // Never sent.
        Failed {
            error: Option<Error>,
        },
    }
}

/// A request without its token, and the service it will go to. In a box, as all that is not on
/// the usual way: it would make every future larger.
pub(super) struct Waiting<S, R, P: Replay<R>> {
    pub(super) service: S,
    pub(super) request: R,
    pub(super) again: Option<P::Copy>,
    /// It has been sent before, with this token, which the API has refused.
    pub(super) refused: Option<TokenId>,
}

/// A token, before the service is ready.
pub(super) struct Acquired {
    token: AccessToken,
    /// It was over when it came, and serves those who waited for it all the same.
    over: bool,
}

pub(super) struct Sent<S, R: HttpRequest, P: Replay<R>> {
    pub(super) token: TokenId,
    /// Where it was sent: only an answer from there is about the token.
    pub(super) origin: R::Origin,
    pub(super) again: Option<Again<S, P::Copy>>,
}

pub(super) struct Again<S, C> {
    pub(super) service: S,
    pub(super) copy: C,
}

pub(super) struct Refused<S, T, C> {
    response: T,
    token: TokenId,
    again: Again<S, C>,
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
        loop {
            // The usual way, apart from all others: they would slow it down.
            let StateProj::Send { future, sent } = this.state.as_mut().project() else {
                match ready!(advance(this.state.as_mut(), this.core, cx))? {
                    ControlFlow::Continue(next) => this.state.set(next),
                    ControlFlow::Break(response) => return Poll::Ready(Ok(response)),
                }
                continue;
            };
            let answer = ready!(future.poll(cx));
            let Shared { cache, rules } = &this.core.0;
            let refusal = |response: &S::Response| {
                let about_the_token = |sent: &Sent<S, R, P>| sent.origin.answered(response);
                rules.judge(response, || cache.present()) == Judgement::Renew
                    && sent.as_ref().is_some_and(about_the_token)
            };
            let (response, sent) = match answer {
                Ok(response) if refusal(&response) => (response, sent.take()),
                answer => return Poll::Ready(answer.map_err(ServiceError::Inner)),
            };
            match refused(cache, sent, response) {
                ControlFlow::Continue(next) => this.state.set(next),
                ControlFlow::Break(response) => return Poll::Ready(Ok(response)),
            }
        }
    }
}

/// What becomes of a request: an answer for the caller, or something to be done first.
type Step<S, R, P> = ControlFlow<<S as Service<R>>::Response, State<S, R, P>>;
type Steps<S, R, P> = Poll<Result<Step<S, R, P>, ServiceError<<S as Service<R>>::Error>>>;

/// One step, in any state but [`State::Send`].
#[inline(never)]
fn advance<S, R, P>(
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
    let cache = &core.0.cache;
    let done = |response| Poll::Ready(Ok(ControlFlow::Break(response)));
    let next = match state.project() {
        StateProj::Pass { future, second } => {
            let response = ready!(future.poll(cx)).map_err(ServiceError::Inner)?;
            let rules = &core.0.rules;
            if *second && rules.judge(&response, || cache.present()) == Judgement::Pass {
                cache.healed();
            }
            return done(response);
        }
        StateProj::Read { read, service } => {
            let prepared = ready!(read.poll(cx)).map_err(ServiceError::Token)?;
            match service.take() {
                Some(service) => {
                    let Prepared { request, again } = prepared;
                    let waiting = Waiting {
                        service,
                        request,
                        again,
                        refused: None,
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
        StateProj::Renew { renewed, refused } => {
            let renewed = ready!(renewed.as_mut().poll(cx));
            match (refused.take(), renewed) {
                (Some(refused), None) => return done(refused.response),
                // The refused answer is dropped here.
                (Some(refused), Some(token)) => {
                    let Again { service, copy } = refused.again;
                    let waiting = Waiting {
                        service,
                        request: P::restore(copy),
                        again: None,
                        refused: Some(refused.token),
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
        // Not here.
        StateProj::Send { .. } => completed(),
    };
    Poll::Ready(Ok(ControlFlow::Continue(next)))
}

/// The API has refused the token.
#[cold]
fn refused<S, R, P>(
    cache: &TokenCache,
    sent: Option<Sent<S, R, P>>,
    response: S::Response,
) -> Step<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    let Some(Sent {
        token: id, again, ..
    }) = sent
    else {
        return ControlFlow::Break(response);
    };
    let token = cache.recall(id);
    let Some(again) = again else {
        if let Some(token) = token {
            cache.reject(&token);
        }
        return ControlFlow::Break(response);
    };
    let cache = cache.clone();
    ControlFlow::Continue(State::Renew {
        renewed: Box::pin(async move {
            match token {
                Some(token) => cache.renew(&token).await,
                // There is a newer one.
                None => cache.token().await.ok(),
            }
        }),
        refused: Some(Box::new(Refused {
            response,
            token: id,
            again,
        })),
    })
}

impl<S, R, P> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    pub(super) fn wait(core: &Core, flight: Flight, waiting: Box<Waiting<S, R, P>>) -> Self {
        let cache = core.0.cache.clone();
        let can_resend = waiting.again.is_some();
        Self::Acquire {
            token: Box::pin(async move { cache.wait(flight, can_resend).await }),
            waiting: Some(waiting),
        }
    }
}

/// A request that needs a token, with a service yet to be ready.
fn acquire<S, R, P>(core: &Core, waiting: Box<Waiting<S, R, P>>) -> State<S, R, P>
where
    S: Service<R>,
    R: HttpRequest,
    P: Replay<R>,
{
    let cache = &core.0.cache;
    match cache.acquire(waiting.again.is_some()) {
        Acquire::Now(token) => acquired(cache, Some(waiting), token),
        Acquire::Fail(error) => State::Failed { error: Some(error) },
        Acquire::Wait(flight) => State::wait(core, flight, waiting),
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
            over: cache.is_over(&token),
            token,
        },
    }
}

/// The service is ready. Becoming so may have taken long: what goes out is the token of now.
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
    let token = match core.0.cache.in_hand() {
        // The new one was over when it came, so that the cache has kept the one that was refused.
        Some(token) if waiting.refused == Some(token.id()) => acquired.token.clone(),
        Some(token) => token,
        None if acquired.over => acquired.token.clone(),
        None => {
            // It ended meanwhile: back to waiting, with nothing reserved.
            waiting.service = waiting.service.clone();
            return acquire(core, waiting);
        }
    };
    let Waiting {
        mut service,
        mut request,
        again,
        refused,
    } = *waiting;
    match put(&token, &mut request) {
        Ok(Some(token)) if refused.is_none() => {
            let again = again.map(|copy| Again {
                service: service.clone(),
                copy,
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
            second: refused.is_some(),
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
