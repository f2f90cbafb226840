//! A flight: one token request, shared by everybody who waits for it.
//!
//! It runs in a task of its own, so that no caller's cancellation is the flight's. Its result goes
//! through a `watch` channel: the sender lives in the task, every waiter has a receiver. If the
//! task goes without a result (a panic in the source, a runtime shut down), a guard takes the
//! flight out of the cache, and the closed channel, or the error of the panic, wakes the waiters.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{Shared, backoff};
use crate::{
    clock::{Clock, Moment},
    error::{Error, ErrorKind, Retry},
    event::Event,
    sync::{AtomicBool, Handle, Mutex, MutexGuard, Notify, watch},
    token::{AccessToken, Arrived, FetchReason, TokenRequest},
};

#[cfg(feature = "tracing")]
use {crate::event::span, tracing::Instrument as _};

/// How long after the flight's own limit it is overdue: only when nothing drives its runtime does
/// it come to that.
const GRACE: Duration = Duration::from_secs(1);
/// A flight that is overdue has this long to end after all: a runtime that stood still between two
/// `block_on` may have been driven again just now.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

pub(super) struct Flight {
    id: u64,
    reason: FetchReason,
    started_at: Moment,
    /// When the flight's own limit should have ended it.
    overdue_at: Moment,
    /// Somebody waits: worth more than one attempt.
    awaited: AtomicBool,
    /// Wakes a flight that waits for its spacing.
    hurry: Notify,
    outcome: watch::Receiver<Option<Outcome>>,
    runtime: Handle,
}

pub(super) type Outcome = Result<Landed, Error>;

/// A token that a flight brought.
#[derive(Clone)]
pub(super) struct Landed {
    pub(super) token: AccessToken,
    /// Its end had passed when it came. It serves those who waited for it, once.
    pub(super) over_on_arrival: bool,
}

/// How waiting for a flight ended.
pub(super) enum WaitEnd {
    Outcome(Outcome),
    /// The flight's task is gone, and left no result.
    Interrupted,
    /// The waiter's own time is over.
    TimeUp,
}

/// A flight, and what its task needs.
pub(super) struct Departure {
    pub(super) flight: Arc<Flight>,
    sender: watch::Sender<Option<Outcome>>,
    request: TokenRequest,
    delay: Duration,
}

impl Flight {
    /// `delay`: how long until the flight may ask; `starts_at` is when that will be.
    pub(super) fn prepare(
        id: u64,
        starts_at: Moment,
        delay: Duration,
        limit: Duration,
        runtime: Handle,
        request: TokenRequest,
    ) -> Departure {
        let (sender, outcome) = watch::channel(None);
        let flight = Arc::new(Flight {
            id,
            reason: request.reason,
            started_at: starts_at,
            overdue_at: starts_at.after(limit.saturating_add(GRACE)),
            awaited: AtomicBool::new(false),
            hurry: Notify::new(),
            outcome,
            runtime,
        });
        Departure {
            flight,
            sender,
            request,
            delay,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn started_at(&self) -> Moment {
        self.started_at
    }

    /// A flight that still waits for its spacing asks now.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Somebody is going to wait. Said before the flight takes off, or it might have failed as one
    /// that nobody waits for by the time the waiter is first polled.
    pub(super) fn expect_waiter(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// Waits until the flight is over, without asking for more attempts.
    pub(super) async fn done(&self) {
        let _ = self.outcome.clone().wait_for(Option::is_some).await;
    }

    /// How long the flight is worth waiting for. It counts from the flight's start: callers whose
    /// own deadlines are short would otherwise wait for a dead flight one after another.
    pub(super) fn patience(&self, now: Moment) -> Duration {
        now.until(self.overdue_at).max(SIGN_OF_LIFE)
    }

    /// Waits for the result, at most for `longest` if given, else until the flight is overdue.
    pub(super) async fn wait(&self, clock: &Clock, longest: Option<Duration>) -> WaitEnd {
        self.expect_waiter();
        let mut outcome = self.outcome.clone();
        // The waiter's timer is its own runtime's: the flight's may have stopped.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let longest = longest.unwrap_or_else(|| self.patience(clock.now()));
        let landed = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(landed) => landed
                    .clone()
                    .map_or(WaitEnd::Interrupted, WaitEnd::Outcome),
                Err(_) => WaitEnd::Interrupted,
            }
        };
        clock
            .timeout(longest, &runtime, landed)
            .await
            .unwrap_or(WaitEnd::TimeUp)
    }
}

impl Departure {
    /// Spawns the task. On a runtime that is shut down the task is dropped on the spot, which
    /// takes the cache's lock: the caller must not hold it.
    pub(super) fn take_off(self, shared: Arc<Shared>) {
        let runtime = self.flight.runtime.clone();
        let guard = Guard {
            shared,
            flight: self.flight,
            sender: Some(self.sender),
            attempt: Mutex::default(),
        };
        runtime.spawn(fly(guard, self.request, self.delay));
    }
}

async fn fly(guard: Guard, request: TokenRequest, delay: Duration) {
    let (shared, flight) = (&guard.shared, &guard.flight);
    let clock = &shared.settings.clock;
    if !delay.is_zero() {
        let _ = clock
            .timeout(delay, &flight.runtime, flight.hurry.notified())
            .await;
        shared.transition(|control, now| control.started(flight, now));
    }
    let limit = shared.settings.fetch_timeout;
    let result = clock
        .timeout(limit, &flight.runtime, ask(&guard, request))
        .await
        .unwrap_or_else(|| {
            let message = "the token request took too long";
            Err(Error::build(ErrorKind::Timeout, Retry::Later, message).done())
        });
    guard.land(result);
}

/// Asks the source, again if the error allows and somebody waits.
async fn ask(guard: &Guard, request: TokenRequest) -> Result<Arrived, Error> {
    let Guard { shared, flight, .. } = guard;
    let settings = &shared.settings;
    let mut attempt = 1;
    loop {
        let asked_at = settings.clock.now();
        guard.begins(attempt, asked_at);
        let fetch = shared.source.fetch_boxed(request.clone());
        #[cfg(feature = "tracing")]
        let fetch = fetch.instrument(span(&settings.events.name, flight.reason));
        let error = match fetch.await {
            Ok(response) => {
                let now = settings.clock.now();
                return Ok(response.arrive(asked_at, now, settings.default_lifetime));
            }
            Err(error) => error,
        };
        if !flight.awaited.load(Ordering::Relaxed) {
            return Err(error);
        }
        let Some(pause) = backoff::between_attempts(&error, attempt) else {
            return Err(error);
        };
        guard.failed(&error.with_retry_after(pause));
        settings.clock.sleep(pause, &flight.runtime).await;
        attempt += 1;
    }
}

/// Ends the flight whatever happens to its task.
struct Guard {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    sender: Option<watch::Sender<Option<Outcome>>>,
    /// For whoever is told of it.
    attempt: Mutex<Attempt>,
}

/// The attempt that is under way, or was the last.
#[derive(Clone, Copy, Default)]
struct Attempt {
    number: u32,
    began: Moment,
}

impl Guard {
    fn land(mut self, result: Result<Arrived, Error>) {
        let outcome = self.shared.land(&self.flight, result);
        match &outcome {
            Some(Ok(landed)) => self.succeeded(&landed.token),
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
        self.tell(&Event::Asked {
            reason: self.flight.reason,
            attempt: number,
        });
    }

    fn succeeded(&self, token: &AccessToken) {
        let (attempt, took) = self.ended();
        self.tell(&Event::Obtained {
            reason: self.flight.reason,
            attempt,
            took,
            waiters: self.waiters(),
            expires_at: token.expires_at(),
        });
    }

    fn failed(&self, error: &Error) {
        let (attempt, took) = self.ended();
        self.tell(&Event::Failed {
            reason: self.flight.reason,
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

    /// All that there are but the flight's own.
    fn waiters(&self) -> usize {
        let receivers = self.sender.as_ref().map(watch::Sender::receiver_count);
        receivers.unwrap_or(0).saturating_sub(1)
    }

    fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &Event<'_>) {
        self.shared.settings.events.tell(event);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // `land` has taken it unless the task was dropped.
        if self.sender.is_none() {
            return;
        }
        let panicked = std::thread::panicking();
        let told = self.shared.crashed(&self.flight, panicked);
        if let Some(error) = &told {
            self.failed(error);
        }
        // Without an error the channel closes.
        if let (Some(sender), Some(error)) = (self.sender.take(), told) {
            sender.send_replace(Some(Err(error)));
        }
    }
}
