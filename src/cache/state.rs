//! The cache's state, which the lock protects, and its transitions.
//!
//! After each transition, [`State`] is published as a [`Snapshot`], which is all that the request
//! path reads. Time and jitter are arguments.
//!
//! Invariants:
//! - At most one flight at a time.
//! - A superseded flight changes nothing when it ends.
//! - Neither a failure nor an expired token replaces a valid token.
//! - A rejection is about one token, which it names.

use std::{sync::Arc, time::Duration};

use super::{
    backoff,
    flight::{Fetched, Flight, Outcome},
    lifecycle::{Inputs, SPACING, Schedule, TokenLifetime},
};
use crate::{
    clock::Moment,
    error::Error,
    token::{AccessToken, FetchReason, TokenRequest},
};

/// After this long without a rejection, the next one counts as the first again.
const QUIET: Duration = Duration::from_secs(5 * 60);

#[derive(Default)]
pub(super) struct State {
    token: Option<CachedToken>,
    flight: Option<Arc<Flight>>,
    flights: u64,
    last_start: Option<Moment>,
    failure: Option<Failure>,
    /// Earliest time of the next refresh after the server returned the cached token again, or an
    /// expired one.
    no_improvement_until: Option<Moment>,
    rejections: Rejections,
    suspect: bool,
}

struct CachedToken {
    token: AccessToken,
    schedule: Option<Schedule>,
}

struct Failure {
    error: Error,
    retry_at: Moment,
    in_a_row: u32,
}

#[derive(Default)]
struct Rejections {
    /// Flights that rejections have caused since the last quiet time.
    flights: u32,
    last: Option<Moment>,
    not_before: Option<Moment>,
}

/// The state that the request path reads, without a lock.
#[derive(Default)]
pub(super) struct Snapshot {
    /// Until then there is nothing to decide.
    pub(super) fresh_until: Moment,
    pub(super) inputs: Inputs,
    pub(super) token: Option<AccessToken>,
    pub(super) flight: Option<Arc<Flight>>,
    pub(super) error: Option<Error>,
}

/// The consequence of a rejected token.
pub(super) enum Rejection {
    /// The cache has a newer token.
    Superseded,
    /// A token request is in flight; its result is the next token.
    InFlight(Arc<Flight>),
    /// A token request may start.
    MayStart,
    /// No token request may start yet: the token stays in use.
    TooSoon,
}

impl State {
    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            token: match &self.token {
                None => TokenLifetime::NoToken,
                Some(CachedToken { schedule: None, .. }) => TokenLifetime::Unlimited,
                Some(CachedToken {
                    schedule: Some(schedule),
                    ..
                }) => TokenLifetime::Until(*schedule),
            },
            suspect: self.suspect,
            in_flight_since: self.flight.as_ref().map(|flight| flight.started_at()),
            not_before: self.not_before(),
            failed: self.failure.is_some(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let inputs = self.inputs();
        Snapshot {
            fresh_until: inputs.fresh_until(),
            inputs,
            token: self.token().cloned(),
            flight: self.flight.clone(),
            error: self.failure.as_ref().map(|failure| failure.error.clone()),
        }
    }

    pub(super) fn token(&self) -> Option<&AccessToken> {
        self.token.as_ref().map(|current| &current.token)
    }

    pub(super) fn flight(&self) -> Option<&Arc<Flight>> {
        self.flight.as_ref()
    }

    /// When the next flight may start, unless a caller forces one.
    pub(super) fn not_before(&self) -> Option<Moment> {
        [
            self.last_start.map(|start| start.after(SPACING)),
            self.failure.as_ref().map(|failure| failure.retry_at),
            self.no_improvement_until,
        ]
        .into_iter()
        .flatten()
        .reduce(Moment::max)
    }

    /// The number of the next flight.
    pub(super) fn next_flight(&mut self) -> u64 {
        self.flights += 1;
        self.flights
    }

    /// Makes a flight the current one. No other may be in flight.
    pub(super) fn begin(&mut self, flight: &Arc<Flight>) {
        self.last_start = Some(flight.started_at());
        self.flight = Some(Arc::clone(flight));
    }

    /// Records the start of a flight that waited for its spacing: earlier than planned if a caller
    /// forced it, later if the machine was suspended.
    pub(super) fn started(&mut self, flight: &Flight, now: Moment) {
        if self.is_current(flight) {
            self.last_start = Some(now);
        }
    }

    /// Returns the request that a flight for `reason` sends to the source.
    pub(super) fn request(&self, reason: FetchReason) -> TokenRequest {
        let mut request = TokenRequest::because(match reason {
            FetchReason::Expired if self.token.is_none() => FetchReason::First,
            reason => reason,
        });
        request.previous = self.token().cloned();
        if reason == FetchReason::Rejected {
            request.rejected = request.previous.clone();
        }
        request
    }

    /// Stores the result of a flight. `None`: the flight was superseded, and changes nothing.
    pub(super) fn land(
        &mut self,
        flight: &Flight,
        now: Moment,
        result: Result<AccessToken, Error>,
        margin: Duration,
        jitter: f64,
    ) -> Option<Outcome> {
        if !self.clear(flight) {
            return None;
        }
        Some(match result {
            Ok(token) => Ok(self.store(now, token, margin, jitter)),
            Err(error) => Err(self.fail(now, error, jitter)),
        })
    }

    /// Removes a flight that has ended or was given up. `false` if it was not the current one.
    pub(super) fn clear(&mut self, flight: &Flight) -> bool {
        let current = self.is_current(flight);
        if current {
            self.flight = None;
            self.suspect = false;
        }
        current
    }

    fn is_current(&self, flight: &Flight) -> bool {
        let current = self.flight.as_ref();
        current.is_some_and(|current| current.id() == flight.id())
    }

    fn store(
        &mut self,
        now: Moment,
        mut token: AccessToken,
        margin: Duration,
        jitter: f64,
    ) -> Fetched {
        let is_expired = |schedule: Option<Schedule>| {
            schedule.is_some_and(|schedule| now.reached(schedule.expires_at()))
        };
        let fresh = token
            .lifetime()
            .map(|(anchor, lifetime)| Schedule::new(anchor, lifetime, margin, jitter));
        self.failure = None;
        self.no_improvement_until = None;
        let (kept, expired_on_arrival) = match self.token.take() {
            // The same token again: the newer expiry counts, if the response has one.
            Some(old) if old.token.same_value(&token) => {
                let schedule = match (old.schedule, fresh) {
                    (Some(old), Some(new)) => Some(old.renewed(new.expires_at())),
                    (old, new) => new.or(old),
                };
                self.pause_for_a_quarter_of(schedule, now);
                // With the id of the old one, so that a rejection of either is a rejection of both.
                token = token.known_as(&old.token);
                let kept = CachedToken {
                    token: token.clone(),
                    schedule,
                };
                (kept, is_expired(schedule))
            }
            // An expired token does not replace a valid one.
            Some(old) if is_expired(fresh) && !is_expired(old.schedule) => {
                self.pause_for_a_quarter_of(old.schedule, now);
                (old, true)
            }
            _ => {
                let token = token.clone();
                let schedule = fresh;
                (CachedToken { token, schedule }, is_expired(schedule))
            }
        };
        self.token = Some(kept);
        Fetched {
            token,
            expired_on_arrival,
        }
    }

    /// Delays the next refresh: the server returned no better token than the one of `schedule`.
    fn pause_for_a_quarter_of(&mut self, schedule: Option<Schedule>, now: Moment) {
        let rest = schedule.map_or(Duration::ZERO, |s| now.until(s.expires_at()));
        self.no_improvement_until = Some(now.after(SPACING.max(rest / 4)));
    }

    /// Resets the state. A flight that has started changes nothing when it ends.
    pub(super) fn forget(&mut self) {
        *self = Self {
            flights: self.flights,
            ..Self::default()
        };
    }

    /// Records a failed flight. Returns the error, with the time until the next attempt.
    pub(super) fn fail(&mut self, now: Moment, error: Error, jitter: f64) -> Error {
        let in_a_row = self.failure.as_ref().map_or(0, |f| f.in_a_row) + 1;
        let pause = backoff::after_failure(&error, in_a_row, jitter);
        let reported = error.with_retry_after(pause);
        self.failure = Some(Failure {
            error,
            retry_at: now.after(pause),
            in_a_row,
        });
        reported
    }

    /// Records that the API rejected `rejected`, and returns the consequence. A caller that starts a
    /// token request because of [`Rejection::MayStart`] calls
    /// [`rejection_flight`](Self::rejection_flight).
    pub(super) fn reject(&mut self, rejected: &AccessToken, now: Moment) -> Rejection {
        if !self.token().is_some_and(|t| t.same_value(rejected)) {
            return Rejection::Superseded;
        }
        let quiet = self
            .rejections
            .last
            .is_some_and(|last| now.since(last) >= QUIET);
        if quiet {
            self.rejections = Rejections::default();
        }
        let first = self.rejections.last.replace(now).is_none();
        let backing_off = self
            .failure
            .as_ref()
            .is_some_and(|failure| !now.reached(failure.retry_at));
        let spaced = self
            .rejections
            .not_before
            .is_none_or(|until| now.reached(until));
        let allowed = spaced && !backing_off;
        if let Some(flight) = self.flight.clone() {
            self.suspect |= first;
            // The flight waits for its spacing, which does not apply to rejections.
            if allowed && !now.reached(flight.started_at()) {
                flight.hurry();
                self.rejection_flight(now);
            }
            Rejection::InFlight(flight)
        } else if allowed {
            Rejection::MayStart
        } else {
            Rejection::TooSoon
        }
    }

    /// Records that a rejection has started a token request.
    pub(super) fn rejection_flight(&mut self, now: Moment) {
        self.rejections.flights = self.rejections.flights.saturating_add(1);
        let pause = backoff::after_rejection(self.rejections.flights);
        self.rejections.not_before = Some(now.after(pause));
        // A token that is rejected repeatedly may be valid on other routes: it stays in use.
        self.suspect = self.rejections.flights == 1;
    }
}
