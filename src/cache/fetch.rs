//! The task of a flight: it calls the source, retries where that helps, and stores the result.
//!
//! Cancellation: the flight is a task of its own, so dropping a caller does not end it. If the task
//! ends without a result (the source panicked, its runtime was shut down), a guard removes the flight
//! from the cache and wakes the waiters: with an error after a panic, else by closing their channel.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    backoff,
    flight::{Departure, Flight, Outcome},
    shared::{Shared, jitter},
    state::State,
};
#[cfg(feature = "tracing")]
use crate::event::span;
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Retry},
    event::Event,
    sync::{Handle, Mutex, MutexGuard, watch},
    token::{AccessToken, FetchReason, TokenRequest},
};
#[cfg(feature = "tracing")]
use tracing::Instrument as _;

impl Shared {
    /// Prepares a flight for `reason`, and makes it the current one. Start it with
    /// [`take_off`](Self::take_off).
    pub(super) fn depart(
        &self,
        state: &mut State,
        reason: FetchReason,
        now: Moment,
        starts_at: Moment,
        runtime: Handle,
    ) -> Departure {
        let request = state.request(reason);
        let id = state.next_flight();
        let delay = now.until(starts_at);
        let limit = self.settings.fetch_timeout;
        let departure = Flight::prepare(id, starts_at, delay, limit, runtime, request);
        state.begin(&departure.flight);
        departure
    }

    /// Starts the task of a flight, if there is one. The caller must not hold the state's lock: a
    /// runtime that was shut down drops the task at once, which takes that lock.
    pub(super) fn take_off(self: &Arc<Self>, departure: Option<Departure>) {
        let Some(departure) = departure else { return };
        let runtime = departure.flight.runtime().clone();
        let guard = Guard {
            shared: Arc::clone(self),
            flight: departure.flight,
            sender: Some(departure.sender),
            attempt: Mutex::default(),
        };
        runtime.spawn(fly(guard, departure.request, departure.delay));
        self.ensure_keeper();
    }

    fn land(&self, flight: &Flight, result: Result<AccessToken, Error>) -> Option<Outcome> {
        let margin = self.settings.safety_margin;
        let jitter = jitter();
        self.transition(|state, now| state.land(flight, now, result, margin, jitter))
    }

    /// Removes a flight whose task was dropped without a result. A panic of the source starts a
    /// backoff: then the result is the error for the waiters, with the time until the next attempt.
    /// The shutdown of a runtime does not, since the next caller's runtime may work.
    fn crashed(&self, flight: &Flight, panicked: bool) -> Option<Error> {
        self.transition(|state, now| {
            let failed = state.clear(flight) && panicked;
            failed.then(|| state.fail(now, interrupted(), jitter()))
        })
    }
}

async fn fly(guard: Guard, request: TokenRequest, delay: Duration) {
    let (shared, flight) = (&guard.shared, &guard.flight);
    let clock = &shared.settings.clock;
    if !delay.is_zero() {
        let pause = clock.pause(delay, flight.runtime());
        let _ = pause.unless(flight.hurried()).await;
        shared.transition(|state, now| state.started(flight, now));
    }
    let limit = shared.settings.fetch_timeout;
    let result = clock
        .timeout(limit, flight.runtime(), fetch(&guard, request))
        .await
        .unwrap_or_else(|| {
            let message = "the token request timed out";
            Err(Error::build(ErrorKind::Timeout, Retry::Later, message).done())
        });
    guard.land(result);
}

/// Calls the source, and retries if the error allows it and a caller waits.
async fn fetch(guard: &Guard, request: TokenRequest) -> Result<AccessToken, Error> {
    let Guard { shared, flight, .. } = guard;
    let settings = &shared.settings;
    let mut attempt = 1;
    loop {
        let requested_at = settings.clock.now();
        guard.begins(attempt, requested_at);
        let fetch = shared.source.fetch_boxed(request.clone());
        #[cfg(feature = "tracing")]
        let fetch = fetch.instrument(span(&settings.events.name, flight.reason()));
        let error = match fetch.await {
            Ok(response) => {
                let now = settings.clock.now();
                return Ok(response.into_token(requested_at, now, settings.default_lifetime));
            }
            Err(error) => error,
        };
        if !flight.is_awaited() {
            return Err(error);
        }
        let Some(pause) = backoff::between_attempts(&error, attempt) else {
            return Err(error);
        };
        guard.failed(&error.with_retry_after(pause));
        settings.clock.pause(pause, flight.runtime()).await;
        attempt += 1;
    }
}

/// The error of a flight whose task was dropped.
pub(super) fn interrupted() -> Error {
    let message = "the token request was interrupted: its runtime was shut down, \
                   or the token source panicked";
    Error::build(ErrorKind::Interrupted, Retry::Later, message).done()
}

/// Ends the flight, even if its task is dropped.
struct Guard {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    sender: Option<watch::Sender<Option<Outcome>>>,
    /// For events.
    attempt: Mutex<Attempt>,
}

/// The current or last attempt.
#[derive(Clone, Copy, Default)]
struct Attempt {
    number: u32,
    began: Moment,
}

impl Guard {
    fn land(mut self, result: Result<AccessToken, Error>) {
        let outcome = self.shared.land(&self.flight, result);
        match &outcome {
            Some(Ok(fetched)) => self.succeeded(&fetched.token),
            Some(Err(error)) => self.failed(error),
            None => {}
        }
        if let Some(sender) = self.sender.take() {
            // Without an outcome the channel closes: the flight was superseded.
            if let Some(outcome) = outcome {
                sender.send_replace(Some(outcome));
            }
        }
    }

    fn begins(&self, number: u32, began: Moment) {
        *self.attempt() = Attempt { number, began };
        self.emit(&Event::Requested {
            reason: self.flight.reason(),
            attempt: number,
        });
    }

    fn succeeded(&self, token: &AccessToken) {
        let (attempt, took) = self.ended();
        self.emit(&Event::Obtained {
            reason: self.flight.reason(),
            attempt,
            took,
            waiters: self.waiters(),
            expires_at: token.expires_at(),
        });
    }

    fn failed(&self, error: &Error) {
        let (attempt, took) = self.ended();
        self.emit(&Event::Failed {
            reason: self.flight.reason(),
            attempt,
            took,
            waiters: self.waiters(),
            error,
        });
    }

    fn ended(&self) -> (u32, Duration) {
        let Attempt { number, began } = *self.attempt();
        let now = self.shared.settings.clock.now();
        (number, now.since(began))
    }

    /// The number of waiters: all receivers except the flight's own.
    fn waiters(&self) -> usize {
        let receivers = self.sender.as_ref().map(watch::Sender::receiver_count);
        receivers.unwrap_or(0).saturating_sub(1)
    }

    fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, event: &Event<'_>) {
        self.shared.settings.events.emit(event);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // `land` has taken the sender unless the task was dropped.
        if self.sender.is_none() {
            return;
        }
        let panicked = std::thread::panicking();
        let error = self.shared.crashed(&self.flight, panicked);
        if let Some(error) = &error {
            self.failed(error);
        }
        // Without an error the channel closes.
        if let (Some(sender), Some(error)) = (self.sender.take(), error) {
            sender.send_replace(Some(Err(error)));
        }
    }
}
