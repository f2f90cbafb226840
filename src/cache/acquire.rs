//! The request path through the cache: from a request to its token, and from a rejection to the next
//! token. Everything that starts a flight or waits for one is here.
//!
//! A request reads one [`Snapshot`], and [`classify`] decides. Only a request that has to start a
//! flight takes the lock, and decides again under it: another caller may have been faster.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};

use super::{
    fetch::interrupted,
    flight::{Flight, WaitEnd},
    lifecycle::{Verdict, classify},
    shared::{Settings, TokenCache},
    state::{Rejection, Snapshot},
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Retry},
    event::Event,
    token::{AccessToken, FetchReason, TokenId},
};

/// How a request gets its token.
pub(crate) enum Acquire {
    Now(AccessToken),
    Wait(Pending),
    Fail(Error),
}

/// A flight to wait for.
pub(crate) struct Pending {
    flight: Arc<Flight>,
    /// With a valid token: the longest wait before the request uses it.
    fallback: Option<Duration>,
}

/// Why a rejected token is not replaced by a new flight.
enum NotRenewed {
    /// The cache has a newer token.
    Superseded,
    /// No token request may start yet: the token stays in use.
    TooSoon,
}

impl TokenCache {
    /// Returns the cached token, or waits for a new one.
    ///
    /// Waits only without a valid token, or for a second at most when the cached token is within its
    /// safety margin or was just rejected. Dropping the future does not cancel the token request.
    ///
    /// # Errors
    ///
    /// There is no valid token, and the token request failed. All callers that waited for it get the
    /// same error. Later callers get it at once, until the next attempt is due
    /// ([`Error::retry_after`]). [`ErrorKind::NoRuntime`] outside a tokio runtime.
    ///
    /// # Panics
    ///
    /// On a tokio runtime that was built without its timer (`enable_time`).
    pub async fn token(&self) -> Result<AccessToken, Error> {
        self.token_for(false).await
    }

    /// Returns the cached token if it is valid, without waiting. Starts a token request in the
    /// background when one is due.
    pub fn try_token(&self) -> Option<AccessToken> {
        match self.acquire_for(false, false) {
            Acquire::Now(token) => Some(token),
            Acquire::Wait(_) | Acquire::Fail(_) => self.cached(),
        }
    }

    /// Starts a token request if one is due, and returns at once. Call it at start-up, so that the
    /// first request does not wait. Does nothing outside a tokio runtime.
    pub fn prefetch(&self) {
        let _ = self.acquire_for(true, false);
    }

    /// Requests a new token, even if the cached one is valid, and even during a backoff. Joins a
    /// token request in flight.
    ///
    /// # Errors
    ///
    /// Those of [`token`](Self::token), for this token request. The cached token stays in use.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        let runtime = self.0.runtime();
        let (flight, departure) = self.0.transition(|state, now| {
            if let Some(flight) = state.flight() {
                flight.hurry();
                return Ok::<_, Error>((Arc::clone(flight), None));
            }
            let runtime = runtime.ok_or_else(Error::no_runtime)?;
            let departure = self.0.depart(state, FetchReason::Manual, now, now, runtime);
            departure.flight.expect_waiter();
            Ok((Arc::clone(&departure.flight), Some(departure)))
        })?;
        self.0.take_off(departure);
        match self.wait_for(&flight, None).await {
            WaitEnd::Outcome(outcome) => outcome.map(|fetched| fetched.token),
            WaitEnd::Interrupted => Err(interrupted()),
            WaitEnd::TimeUp => {
                self.supersede(&flight);
                Err(overdue())
            }
        }
    }

    /// Reports that the API rejected this token. The cache requests another one in the background,
    /// unless it already has a newer one.
    ///
    /// Compares by value, so that a late 401 about an old token leaves the newer one alone. If the
    /// token request fails, or the backoff after repeated rejections forbids it, the rejected token
    /// stays in use: the fault may be one route's.
    pub fn reject(&self, token: &AccessToken) {
        let _ = self.rejected(token, false);
    }

    /// Whether the caller has set `Authorization` on a request, and the token uses that header. Without
    /// a cached token, it is assumed to.
    pub(crate) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let in_authorization = |token: &AccessToken| token.header_name() == AUTHORIZATION;
        headers.contains_key(AUTHORIZATION) && self.present().as_ref().is_none_or(in_authorization)
    }

    /// Returns the token for a request, and waits for one if necessary. `can_resend`: see [`classify`].
    pub(crate) async fn token_for(&self, can_resend: bool) -> Result<AccessToken, Error> {
        match self.acquire(can_resend) {
            Acquire::Now(token) => Ok(token),
            Acquire::Wait(pending) => self.wait(pending, can_resend).await,
            Acquire::Fail(error) => Err(error),
        }
    }

    /// Decides how a request gets its token, without waiting. `can_resend`: see [`classify`].
    #[inline]
    pub(crate) fn acquire(&self, can_resend: bool) -> Acquire {
        self.acquire_for(can_resend, true)
    }

    /// `waits`: the caller waits for a flight if necessary.
    #[inline]
    fn acquire_for(&self, can_resend: bool, waits: bool) -> Acquire {
        let now = self.0.settings.clock.now();
        let settled = self.0.snapshot.load().settled(now, can_resend);
        settled.unwrap_or_else(|| self.start_flight(can_resend, waits))
    }

    /// Passes the token to `use_it` if it is valid and no refresh is due, as for nearly all requests.
    /// Changes no reference count.
    #[inline]
    pub(crate) fn with_fresh<T>(&self, use_it: impl FnOnce(&AccessToken) -> T) -> Option<T> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match &snapshot.token {
            Some(token) if !now.reached(snapshot.fresh_until) => Some(use_it(token)),
            _ => None,
        }
    }

    /// Returns the token that was sent as `id`, unless there is a newer one.
    pub(crate) fn recall(&self, id: TokenId) -> Option<AccessToken> {
        self.present().filter(|token| token.id() == id)
    }

    /// Returns the cached token, valid or not.
    pub(crate) fn present(&self) -> Option<AccessToken> {
        self.0.snapshot.load().token.clone()
    }

    /// Returns the cached token, if it has not expired.
    pub(crate) fn cached(&self) -> Option<AccessToken> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match classify(&snapshot.inputs, now, true) {
            Verdict::Due { fallback: None }
            | Verdict::BackingOff {
                fallback: false, ..
            } => None,
            _ => snapshot.token.clone(),
        }
    }

    /// Whether `token` has expired.
    pub(crate) fn is_expired(&self, token: &AccessToken) -> bool {
        token.is_expired(self.0.settings.clock.now())
    }

    /// Starts a flight, unless another caller has been faster.
    #[cold]
    fn start_flight(&self, can_resend: bool, waits: bool) -> Acquire {
        let runtime = self.0.runtime();
        let (answer, departure) = self.0.transition(|state, now| {
            if let Some(settled) = state.snapshot().settled(now, can_resend) {
                return (settled, None);
            }
            let token = state.token().cloned();
            match (classify(&state.inputs(), now, can_resend), runtime, token) {
                (Verdict::RefreshAhead, runtime, Some(token)) => {
                    let reason = FetchReason::ExpiresSoon;
                    let departure =
                        runtime.map(|runtime| self.0.depart(state, reason, now, now, runtime));
                    (Acquire::Now(token), departure)
                }
                (Verdict::Due { fallback }, Some(runtime), _) => {
                    let blocked = state.not_before().filter(|until| !now.reached(*until));
                    let starts_at = blocked.unwrap_or(now);
                    let reason = FetchReason::Expired;
                    let departure = self.0.depart(state, reason, now, starts_at, runtime);
                    let flight = Arc::clone(&departure.flight);
                    if waits {
                        flight.expect_waiter();
                    }
                    let pending = Pending { flight, fallback };
                    (Acquire::Wait(pending), Some(departure))
                }
                (Verdict::Due { fallback: Some(_) }, None, Some(token)) => {
                    (Acquire::Now(token), None)
                }
                _ => (Acquire::Fail(Error::no_runtime()), None),
            }
        });
        self.0.take_off(departure);
        answer
    }

    /// Waits for a flight, and decides again.
    pub(crate) async fn wait(
        &self,
        mut pending: Pending,
        can_resend: bool,
    ) -> Result<AccessToken, Error> {
        /// How often to wait: a new token may have expired before its waiter wakes.
        const ROUNDS: usize = 3;

        for _ in 0..ROUNDS {
            let Pending { flight, fallback } = pending;
            let end = self.wait_for(&flight, fallback).await;
            if let Some(token) = self.cached() {
                return Ok(token);
            }
            match end {
                WaitEnd::Outcome(Ok(fetched)) if fetched.expired_on_arrival => {
                    return Ok(fetched.token);
                }
                WaitEnd::Outcome(Ok(_)) => {}
                WaitEnd::Outcome(Err(error)) => return Err(error),
                // Another caller gave the flight up, and started a new one.
                WaitEnd::Interrupted if self.0.snapshot.load().flight.is_some() => {}
                WaitEnd::Interrupted => return Err(interrupted()),
                WaitEnd::TimeUp if fallback.is_none() => self.supersede(&flight),
                WaitEnd::TimeUp => {}
            }
            pending = match self.acquire(can_resend) {
                Acquire::Now(token) => return Ok(token),
                Acquire::Fail(error) => return Err(error),
                Acquire::Wait(pending) => pending,
            };
        }
        Err(overdue())
    }

    async fn wait_for(&self, flight: &Flight, max_wait: Option<Duration>) -> WaitEnd {
        let Settings { clock, events, .. } = &self.0.settings;
        let began = clock.now();
        let end = flight.wait(clock, max_wait).await;
        let took = clock.now().since(began);
        events.emit(&Event::Waited { took });
        end
    }

    /// Reports that a rejected request has succeeded with another token.
    pub(crate) fn recovered(&self) {
        self.0.settings.events.emit(&Event::Recovered {});
    }

    /// The API rejected `rejected`: returns another token, if there is or will be one.
    pub(crate) async fn renew(&self, rejected: &AccessToken) -> Option<AccessToken> {
        let other = |token: &AccessToken| !token.same_value(rejected);
        let flight = match self.rejected(rejected, true) {
            Ok(flight) => flight,
            Err(NotRenewed::Superseded) => return self.token().await.ok().filter(other),
            Err(NotRenewed::TooSoon) => return None,
        };
        let fetched = match self.wait_for(&flight, None).await {
            WaitEnd::Outcome(outcome) => outcome.ok().map(|fetched| fetched.token),
            WaitEnd::Interrupted => None,
            WaitEnd::TimeUp => {
                self.supersede(&flight);
                None
            }
        };
        self.cached().filter(other).or(fetched.filter(other))
    }

    fn rejected(&self, rejected: &AccessToken, waits: bool) -> Result<Arc<Flight>, NotRenewed> {
        let runtime = self.0.runtime();
        let (answer, departure) =
            self.0
                .transition(|state, now| match (state.reject(rejected, now), runtime) {
                    (Rejection::Superseded, _) => (Err(NotRenewed::Superseded), None),
                    (Rejection::InFlight(flight), _) => (Ok(flight), None),
                    (Rejection::TooSoon, _) | (Rejection::MayStart, None) => {
                        (Err(NotRenewed::TooSoon), None)
                    }
                    (Rejection::MayStart, Some(runtime)) => {
                        let reason = FetchReason::Rejected;
                        let departure = self.0.depart(state, reason, now, now, runtime);
                        state.rejection_flight(now);
                        if waits {
                            departure.flight.expect_waiter();
                        }
                        (Ok(Arc::clone(&departure.flight)), Some(departure))
                    }
                });
        if !matches!(answer, Err(NotRenewed::Superseded)) {
            self.0.settings.events.emit(&Event::Rejected {});
        }
        self.0.take_off(departure);
        answer
    }

    /// Gives up an overdue flight, whose runtime is not driven. Another flight may start.
    pub(super) fn supersede(&self, flight: &Flight) {
        self.0.transition(|state, _| state.clear(flight));
    }
}

impl Snapshot {
    /// Returns what a request gets if no flight has to start: the cached token, a flight to wait for,
    /// or an error. `None`: a flight has to start.
    fn settled(&self, now: Moment, can_resend: bool) -> Option<Acquire> {
        match (classify(&self.inputs, now, can_resend), &self.token) {
            (Verdict::Fresh | Verdict::BackingOff { fallback: true, .. }, Some(token)) => {
                Some(Acquire::Now(token.clone()))
            }
            (Verdict::BackingOff { until, .. }, _) => {
                let error = self.error.as_ref()?;
                let wait = now.until(until);
                Some(Acquire::Fail(error.with_retry_after(wait)))
            }
            (Verdict::Due { fallback }, _) => {
                let flight = Arc::clone(self.flight.as_ref()?);
                Some(Acquire::Wait(Pending { flight, fallback }))
            }
            (Verdict::RefreshAhead | Verdict::Fresh, _) => None,
        }
    }
}

fn overdue() -> Error {
    let message = "no token in time: the runtime of the token request is not driven, \
                   or tokens expire before they can be used";
    Error::build(ErrorKind::Timeout, Retry::Later, message).done()
}
