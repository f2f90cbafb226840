//! The way of a request through the cache, and of a refusal: everything that starts a flight or
//! waits for one.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};

use super::{
    Settings, TokenCache,
    flight::{Departure, Flight, WaitEnd},
    interrupted,
    lifecycle::{Verdict, classify},
    overdue,
    state::{Control, Rejection, Snapshot},
};
use crate::{
    clock::Moment,
    error::Error,
    event::Event,
    sync::Handle,
    token::{AccessToken, FetchReason, TokenId},
};

/// How a request gets its token.
pub(crate) enum Acquire {
    Now(AccessToken),
    Wait(Waiting),
    Fail(Error),
}

/// A flight to wait for.
pub(crate) struct Waiting {
    flight: Arc<Flight>,
    /// There is a valid token: wait this long at most.
    fallback: Option<Duration>,
}

impl TokenCache {
    /// Whether the caller has put a token of its own on a request. What header ours goes in is
    /// known when there is one: until then, it is `Authorization`.
    pub(crate) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let in_authorization = |token: &AccessToken| token.header_name() == AUTHORIZATION;
        headers.contains_key(AUTHORIZATION) && self.present().as_ref().is_none_or(in_authorization)
    }

    /// The way of a request, up to where it has to wait. `can_resend`: see [`classify`].
    #[inline]
    pub(crate) fn acquire(&self, can_resend: bool) -> Acquire {
        self.acquire_for(can_resend, true)
    }

    /// `waits`: the caller is going to wait if it is told to.
    #[inline]
    pub(super) fn acquire_for(&self, can_resend: bool, waits: bool) -> Acquire {
        let now = self.0.settings.clock.now();
        let settled = self.0.snapshot.load().settled(now, can_resend);
        settled.unwrap_or_else(|| self.start_flight(can_resend, waits))
    }

    /// Lends the token to `put`, if there is one that is good and leaves nothing to do: the way of
    /// nearly all requests. No reference count is touched.
    #[inline]
    pub(crate) fn with_fresh<T>(&self, put: impl FnOnce(&AccessToken) -> T) -> Option<T> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match &snapshot.token {
            Some(token) if !now.reached(snapshot.fresh_until) => Some(put(token)),
            _ => None,
        }
    }

    /// The token that was sent as `id`, unless there is a newer one.
    pub(crate) fn recall(&self, id: TokenId) -> Option<AccessToken> {
        self.present().filter(|token| token.id() == id)
    }

    /// The token that there is, good or not.
    pub(crate) fn present(&self) -> Option<AccessToken> {
        self.0.snapshot.load().token.clone()
    }

    /// A flight has to start, unless somebody has been faster.
    #[cold]
    fn start_flight(&self, can_resend: bool, waits: bool) -> Acquire {
        let runtime = self.runtime();
        let (answer, departure) = self.transition(|control, now| {
            if let Some(settled) = control.snapshot().settled(now, can_resend) {
                return (settled, None);
            }
            let token = control.token().cloned();
            match (classify(&control.state(), now, can_resend), runtime, token) {
                (Verdict::Ageing, runtime, Some(token)) => {
                    let departure = runtime.map(|runtime| {
                        self.depart(control, FetchReason::Ageing, now, now, runtime)
                    });
                    (Acquire::Now(token), departure)
                }
                (Verdict::Due { fallback }, Some(runtime), _) => {
                    let blocked = control.not_before().filter(|until| !now.reached(*until));
                    let starts_at = blocked.unwrap_or(now);
                    let departure =
                        self.depart(control, FetchReason::Expired, now, starts_at, runtime);
                    let flight = Arc::clone(&departure.flight);
                    if waits {
                        flight.expect_waiter();
                    }
                    let waiting = Waiting { flight, fallback };
                    (Acquire::Wait(waiting), Some(departure))
                }
                (Verdict::Due { fallback: Some(_) }, None, Some(token)) => {
                    (Acquire::Now(token), None)
                }
                _ => (Acquire::Fail(Error::no_runtime()), None),
            }
        });
        self.take_off(departure);
        answer
    }

    /// Waits, and classifies again.
    pub(crate) async fn wait(
        &self,
        mut waiting: Waiting,
        can_resend: bool,
    ) -> Result<AccessToken, Error> {
        /// A token may be over again when its waiter wakes: how often to start anew.
        const ROUNDS: usize = 3;

        for _ in 0..ROUNDS {
            let Waiting { flight, fallback } = waiting;
            let end = self.wait_for(&flight, fallback).await;
            if let Some(token) = self.in_hand() {
                return Ok(token);
            }
            match end {
                WaitEnd::Outcome(Ok(landed)) if landed.over_on_arrival => return Ok(landed.token),
                WaitEnd::Outcome(Ok(_)) => {}
                WaitEnd::Outcome(Err(error)) => return Err(error),
                // Somebody gave it up, and another is under way.
                WaitEnd::Interrupted if self.0.snapshot.load().flight.is_some() => {}
                WaitEnd::Interrupted => return Err(interrupted()),
                WaitEnd::TimeUp if fallback.is_none() => self.supersede(&flight),
                WaitEnd::TimeUp => {}
            }
            waiting = match self.acquire(can_resend) {
                Acquire::Now(token) => return Ok(token),
                Acquire::Fail(error) => return Err(error),
                Acquire::Wait(waiting) => waiting,
            };
        }
        Err(overdue())
    }

    pub(super) async fn wait_for(&self, flight: &Flight, longest: Option<Duration>) -> WaitEnd {
        let Settings { clock, events, .. } = &self.0.settings;
        let began = clock.now();
        let end = flight.wait(clock, longest).await;
        let took = clock.now().since(began);
        events.tell(&Event::Waited { took });
        end
    }

    /// A request that was refused has gone through with another token.
    pub(crate) fn healed(&self) {
        self.0.settings.events.tell(&Event::Healed {});
    }

    /// The API refused `rejected`: another token, if there is or will be one.
    pub(crate) async fn renew(&self, rejected: &AccessToken) -> Option<AccessToken> {
        let other = |token: &AccessToken| !token.same_value(rejected);
        let flight = match self.rejected(rejected, true) {
            Rejected::Superseded => return self.token().await.ok().filter(other),
            Rejected::TooSoon => return None,
            Rejected::Flight(flight) => flight,
        };
        let landed = match self.wait_for(&flight, None).await {
            WaitEnd::Outcome(outcome) => outcome.ok().map(|landed| landed.token),
            WaitEnd::Interrupted => None,
            WaitEnd::TimeUp => {
                self.supersede(&flight);
                None
            }
        };
        self.in_hand().filter(other).or(landed.filter(other))
    }

    pub(super) fn rejected(&self, rejected: &AccessToken, waits: bool) -> Rejected {
        let runtime = self.runtime();
        let (answer, departure) =
            self.transition(
                |control, now| match (control.reject(rejected, now), runtime) {
                    (Rejection::Superseded, _) => (Rejected::Superseded, None),
                    (Rejection::Join(flight), _) => (Rejected::Flight(flight), None),
                    (Rejection::Hurry(flight), _) => {
                        flight.hurry();
                        control.rejection_flight(now);
                        (Rejected::Flight(flight), None)
                    }
                    (Rejection::TooSoon, _) | (Rejection::Start, None) => (Rejected::TooSoon, None),
                    (Rejection::Start, Some(runtime)) => {
                        let departure =
                            self.depart(control, FetchReason::Rejected, now, now, runtime);
                        control.rejection_flight(now);
                        if waits {
                            departure.flight.expect_waiter();
                        }
                        (
                            Rejected::Flight(Arc::clone(&departure.flight)),
                            Some(departure),
                        )
                    }
                },
            );
        if !matches!(answer, Rejected::Superseded) {
            self.0.settings.events.tell(&Event::Rejected {});
        }
        self.take_off(departure);
        answer
    }

    /// Whether `token` has ended by now.
    pub(crate) fn is_over(&self, token: &AccessToken) -> bool {
        token.is_over(self.0.settings.clock.now())
    }

    /// The token in hand, if it has not ended.
    pub(crate) fn in_hand(&self) -> Option<AccessToken> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match classify(&snapshot.state, now, true) {
            Verdict::Due { fallback: None }
            | Verdict::BackingOff {
                fallback: false, ..
            } => None,
            _ => snapshot.token.clone(),
        }
    }

    /// A flight for `reason`, put in its place; it has yet to take off.
    pub(super) fn depart(
        &self,
        control: &mut Control,
        reason: FetchReason,
        now: Moment,
        starts_at: Moment,
        runtime: Handle,
    ) -> Departure {
        let request = control.request(reason);
        let id = control.next_flight();
        let delay = now.until(starts_at);
        let limit = self.0.settings.fetch_timeout;
        let departure = Flight::prepare(id, starts_at, delay, limit, runtime, request);
        control.begin(&departure.flight);
        departure
    }

    pub(super) fn take_off(&self, departure: Option<Departure>) {
        if let Some(departure) = departure {
            departure.take_off(Arc::clone(&self.0));
            self.ensure_keeper();
        }
    }

    /// The flight is overdue: its runtime stands still. Another may start.
    pub(super) fn supersede(&self, flight: &Flight) {
        self.transition(|control, _| control.clear(flight));
    }

    pub(super) fn transition<T>(&self, change: impl FnOnce(&mut Control, Moment) -> T) -> T {
        self.0.transition(change)
    }

    pub(super) fn runtime(&self) -> Option<Handle> {
        let own = self.0.settings.runtime.clone();
        own.or_else(|| Handle::try_current().ok())
    }
}

impl Snapshot {
    /// What becomes of a request when there is nothing to do about it: a token in hand, a flight
    /// under way, or a failure that has to be told. `None`: a flight has to start.
    fn settled(&self, now: Moment, can_resend: bool) -> Option<Acquire> {
        match (classify(&self.state, now, can_resend), &self.token) {
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
                Some(Acquire::Wait(Waiting { flight, fallback }))
            }
            (Verdict::Ageing | Verdict::Fresh, _) => None,
        }
    }
}

/// See [`TokenCache::rejected`].
pub(super) enum Rejected {
    Superseded,
    Flight(Arc<Flight>),
    TooSoon,
}
