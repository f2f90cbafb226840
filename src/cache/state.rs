//! The cache's state and its transitions: what lies under the lock.
//!
//! [`Control`] is the truth; after each transition it is published as a [`Snapshot`], which is all
//! that the way of a request reads. Time and chance come in as arguments.
//!
//! Invariants: at most one flight at a time; a flight that was superseded changes nothing when it
//! lands; neither a failure nor a dead token displaces a good one; a rejection names the token it
//! means.

use std::{sync::Arc, time::Duration};

use super::{
    backoff,
    flight::{Flight, Landed, Outcome},
    lifecycle::{Held, SPACING, Schedule, State},
};
use crate::{
    clock::Moment,
    error::Error,
    token::{AccessToken, Arrived, FetchReason, TokenRequest},
};

/// After this long without a rejection, the next is the first again.
const QUIET: Duration = Duration::from_secs(5 * 60);

#[derive(Default)]
pub(super) struct Control {
    token: Option<Current>,
    flight: Option<Arc<Flight>>,
    flights: u64,
    last_start: Option<Moment>,
    failure: Option<Failure>,
    /// The last flight brought nothing better than the token in hand: the same again, or a dead one.
    in_vain_until: Option<Moment>,
    rejections: Rejections,
    resting: bool,
}

struct Current {
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

/// What the way of a request reads, without a lock.
#[derive(Default)]
pub(super) struct Snapshot {
    /// Until then there is nothing to decide.
    pub(super) fresh_until: Moment,
    pub(super) state: State,
    pub(super) token: Option<AccessToken>,
    pub(super) flight: Option<Arc<Flight>>,
    pub(super) error: Option<Error>,
}

/// What becomes of a rejected token.
pub(super) enum Rejection {
    /// It is not the one that the cache has: there is a newer one.
    Superseded,
    /// A flight is under way.
    Join(Arc<Flight>),
    /// A flight waits for its spacing, and may start.
    Hurry(Arc<Flight>),
    /// A flight may start.
    Start,
    /// No flight may start yet: the token stays in use.
    TooSoon,
}

impl Control {
    pub(super) fn state(&self) -> State {
        State {
            token: match &self.token {
                None => Held::Nothing,
                Some(Current { schedule: None, .. }) => Held::Lasting,
                Some(Current {
                    schedule: Some(schedule),
                    ..
                }) => Held::Until(*schedule),
            },
            resting: self.resting,
            flying_since: self.flight.as_ref().map(|flight| flight.started_at()),
            not_before: self.not_before(),
            failed: self.failure.is_some(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            fresh_until: state.fresh_until(),
            state,
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

    /// When the next flight that nobody forces may start.
    pub(super) fn not_before(&self) -> Option<Moment> {
        [
            self.last_start.map(|start| start.after(SPACING)),
            self.failure.as_ref().map(|failure| failure.retry_at),
            self.in_vain_until,
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

    /// Puts a flight in its place. There must be none under way.
    pub(super) fn begin(&mut self, flight: &Arc<Flight>) {
        self.last_start = Some(flight.started_at());
        self.flight = Some(Arc::clone(flight));
    }

    /// A flight that waited for its time starts: earlier than it was to, if somebody was in a hurry,
    /// or later, if the machine slept.
    pub(super) fn started(&mut self, flight: &Flight, now: Moment) {
        if self.is_current(flight) {
            self.last_start = Some(now);
        }
    }

    /// What the source is asked in a flight that starts for `reason`.
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

    /// A flight has its result. `None`: it had been superseded, and changes nothing.
    pub(super) fn land(
        &mut self,
        flight: &Flight,
        now: Moment,
        result: Result<Arrived, Error>,
        margin: Duration,
        jitter: f64,
    ) -> Option<Outcome> {
        if !self.clear(flight) {
            return None;
        }
        Some(match result {
            Ok(arrived) => Ok(self.store(now, arrived, margin, jitter)),
            Err(error) => Err(self.fail(now, error, jitter)),
        })
    }

    /// The flight is over, or given up. `false` if it no longer was the one under way.
    pub(super) fn clear(&mut self, flight: &Flight) -> bool {
        let current = self.is_current(flight);
        if current {
            self.flight = None;
            self.resting = false;
        }
        current
    }

    fn is_current(&self, flight: &Flight) -> bool {
        let current = self.flight.as_ref();
        current.is_some_and(|current| current.id() == flight.id())
    }

    fn store(&mut self, now: Moment, arrived: Arrived, margin: Duration, jitter: f64) -> Landed {
        let Arrived { token, lifetime } = arrived;
        let is_over = |schedule: Option<Schedule>| {
            schedule.is_some_and(|schedule| now.reached(schedule.expires_at()))
        };
        let fresh = lifetime.map(|(anchor, life)| Schedule::new(anchor, life, margin, jitter));
        self.failure = None;
        self.in_vain_until = None;
        let (kept, over_on_arrival) = match self.token.take() {
            // The same token again. Its end is taken from the newer answer; an answer that names
            // none takes none away.
            Some(old) if old.token.same_value(&token) => {
                let schedule = match (old.schedule, fresh) {
                    (Some(old), Some(new)) => Some(old.renewed(new.expires_at())),
                    (old, new) => new.or(old),
                };
                self.pause_for_a_quarter_of(schedule, now);
                let token = token.clone().known_as(&old.token);
                (Current { token, schedule }, is_over(schedule))
            }
            // A dead one does not displace one that is good.
            Some(old) if is_over(fresh) && !is_over(old.schedule) => {
                self.pause_for_a_quarter_of(old.schedule, now);
                (old, true)
            }
            _ => {
                let token = token.clone();
                let schedule = fresh;
                (Current { token, schedule }, is_over(schedule))
            }
        };
        self.token = Some(kept);
        Landed {
            token,
            over_on_arrival,
        }
    }

    /// Asking again brought nothing better than a token that ends by `schedule`.
    fn pause_for_a_quarter_of(&mut self, schedule: Option<Schedule>, now: Moment) {
        let rest = schedule.map_or(Duration::ZERO, |s| now.until(s.expires_at()));
        self.in_vain_until = Some(now.after(SPACING.max(rest / 4)));
    }

    /// As it was in the beginning. A flight that is under way changes nothing when it lands.
    pub(super) fn forget(&mut self) {
        *self = Self {
            flights: self.flights,
            ..Self::default()
        };
    }

    /// Notes a failed flight, and says when the next may start.
    pub(super) fn fail(&mut self, now: Moment, error: Error, jitter: f64) -> Error {
        let in_a_row = self.failure.as_ref().map_or(0, |f| f.in_a_row) + 1;
        let pause = backoff::after_failure(&error, in_a_row, jitter);
        let told = error.with_retry_after(pause);
        self.failure = Some(Failure {
            error,
            retry_at: now.after(pause),
            in_a_row,
        });
        told
    }

    /// The API refused `rejected`. When this says [`Rejection::Start`] or [`Rejection::Hurry`] and
    /// a flight does start, [`rejection_flight`](Self::rejection_flight) must be told.
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
        if let Some(flight) = &self.flight {
            self.resting |= first;
            let flight = Arc::clone(flight);
            if allowed && !now.reached(flight.started_at()) {
                Rejection::Hurry(flight)
            } else {
                Rejection::Join(flight)
            }
        } else if allowed {
            Rejection::Start
        } else {
            Rejection::TooSoon
        }
    }

    /// A flight has been started because of a rejection.
    pub(super) fn rejection_flight(&mut self, now: Moment) {
        self.rejections.flights = self.rejections.flights.saturating_add(1);
        let pause = backoff::after_rejection(self.rejections.flights);
        self.rejections.not_before = Some(now.after(pause));
        // A token that is refused again and again is good for other routes: it goes on serving.
        self.resting = self.rejections.flights == 1;
    }
}
