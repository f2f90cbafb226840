//! [`BearerAuth`]: the way of a request.
//!
//! ```text
//!            ┌─ not for us, or the caller's own header ──► Pass ──► response
//! call ──────┼─ a token in hand ───────────► Send ──► response
//!            └─ else ──► Read ─► Acquire ─► Ready ─► Send ──► response
//!                                             ▲       │ 401
//!                                             └─ Renew ◄┘ once
//! ```
//!
//! Invariants. With a token in hand the inner service is called within `call`, on the instance
//! whose readiness was polled; nothing is boxed, no lock is taken, and no reference count is changed
//! that another thread changes too ([`Spread`]). A call that has to wait gives that instance up
//! first, so that it holds nobody's permit while it waits, and polls a clone when its time has
//! come; a call that fails without being sent gives it up too. The header is written when the
//! service is ready, with the token of that moment. Readiness is the inner service's: it never
//! waits for a token, and never fails for want of one. A 401 is kept, body untouched, until it is
//! clear whether a second try is made, and is gone before the second try asks for readiness. There
//! is no third try.

mod future;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

pub use self::future::ResponseFuture;
use self::future::{Again, Sent, State, Waiting};

use super::{
    decide::{Rules, authorize},
    http_types::{HttpRequest, HttpResponse},
    layer::BearerAuthLayer,
    resend::{InMemory, Replay, sealed::Kept},
    service_error::ServiceError,
    target::Admission,
};
use crate::{
    cache::{Acquire, TokenCache},
    error::Error,
    per_core::{Alone, Spread},
    token::{AccessToken, TokenId},
};

/// The service of a [`BearerAuthLayer`].
#[derive(Clone)]
pub struct BearerAuth<S, P = InMemory> {
    inner: S,
    core: Arc<Spread<Arc<Core>>>,
    resend: P,
}

/// What a service shares with its requests under way.
pub(crate) type Core = Alone<Shared>;

#[derive(Clone, Debug)]
pub(crate) struct Shared {
    cache: TokenCache,
    rules: Rules,
}

impl<S, P> BearerAuth<S, P> {
    pub(crate) fn new(inner: S, layer: BearerAuthLayer<P>) -> Self {
        let (cache, rules, resend) = layer.into_parts();
        let core = Arc::new(Alone(Shared { cache, rules }));
        let core = Spread::new(core, |core| Arc::new(Alone(core.0.clone())));
        Self {
            inner,
            core: Arc::new(core),
            resend,
        }
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

impl<S: fmt::Debug, P: fmt::Debug> fmt::Debug for BearerAuth<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { cache, rules } = &self.core.first().0;
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
        let Shared { cache, rules } = &core.0;
        match rules.admit(&request) {
            Admission::Allowed => {}
            Admission::Elsewhere => return self.pass(core, request),
            Admission::Refused(error) => return self.fail(core, error),
        }
        let again = match self.resend.keep(&request) {
            Kept::Copy(again) => Some(again),
            Kept::Nothing => None,
            Kept::Later(later) => return self.read(core, request, later),
        };
        let put = match cache.with_fresh(|token| put(token, &mut request)) {
            Some(done) => done,
            None if cache.is_authorized(request.headers()) => Ok(None),
            None => match cache.acquire(again.is_some()) {
                Acquire::Now(token) => put(&token, &mut request),
                Acquire::Fail(error) => Err(error),
                Acquire::Wait(flight) => {
                    let waiting = Waiting {
                        service: self.stand_back(),
                        request,
                        again,
                        refused: None,
                    };
                    let state = State::wait(&core, flight, Box::new(waiting));
                    return ResponseFuture { state, core };
                }
            },
        };
        match put {
            Ok(Some(token)) => {
                let again = again.map(|copy| Again {
                    service: self.inner.clone(),
                    copy,
                });
                let sent = Some(Sent {
                    token,
                    origin: request.origin(),
                    again,
                });
                ResponseFuture {
                    state: State::Send {
                        future: self.inner.call(request),
                        sent,
                    },
                    core,
                }
            }
            Ok(None) => self.pass(core, request),
            Err(error) => self.fail(core, error),
        }
    }
}

/// Puts the token on a request, unless the caller has set that header.
#[inline(always)]
fn put<R: HttpRequest>(token: &AccessToken, request: &mut R) -> Result<Option<TokenId>, Error> {
    let ours = authorize(request.headers_mut(), token)?;
    Ok(ours.then(|| token.id()))
}

impl<S, P> BearerAuth<S, P> {
    fn pass<R>(&mut self, core: Arc<Core>, request: R) -> ResponseFuture<S, R, P>
    where
        S: Service<R>,
        R: HttpRequest,
        P: Replay<R>,
    {
        let future = self.inner.call(request);
        let state = State::Pass {
            future,
            second: false,
        };
        ResponseFuture { state, core }
    }

    /// The request is not sent: nothing stays reserved for it.
    #[cold]
    fn fail<R>(&mut self, core: Arc<Core>, error: Error) -> ResponseFuture<S, R, P>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        P: Replay<R>,
    {
        self.inner = self.inner.clone();
        let state = State::Failed { error: Some(error) };
        ResponseFuture { state, core }
    }

    /// A request whose body has to be read first.
    fn read<R>(&mut self, core: Arc<Core>, request: R, later: P::Later) -> ResponseFuture<S, R, P>
    where
        S: Service<R> + Clone,
        R: HttpRequest,
        P: Replay<R>,
    {
        if core.0.cache.is_authorized(request.headers()) {
            return self.pass(core, request);
        }
        let read = self.resend.read(request, later);
        let service = Some(self.stand_back());
        let state = State::Read { read, service };
        ResponseFuture { state, core }
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
