//! A flight: one token request, shared by all callers that wait for it (single flight).
//!
//! The task of the flight (`fetch.rs`) owns the sender of a `watch` channel, and every waiter a
//! receiver. If the channel closes without a value, the task was dropped or superseded.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    clock::{Clock, Moment},
    error::Error,
    sync::{AtomicBool, Handle, Notify, watch},
    token::{AccessToken, FetchReason, TokenRequest},
};

/// How long after its own timeout a flight is overdue: only if its runtime is not driven.
const GRACE: Duration = Duration::from_secs(1);
/// Minimum wait for an overdue flight: its runtime, idle between two calls of `block_on`, may just
/// have been driven again.
const MIN_WAIT: Duration = Duration::from_secs(5);

/// A token request in flight, as its waiters see it.
pub(super) struct Flight {
    id: u64,
    reason: FetchReason,
    started_at: Moment,
    /// When the flight's own timeout should have ended it.
    overdue_at: Moment,
    /// A caller waits, so the flight may retry.
    awaited: AtomicBool,
    /// Wakes a flight that waits for its spacing.
    hurry: Notify,
    outcome: watch::Receiver<Option<Outcome>>,
    runtime: Handle,
}

pub(super) type Outcome = Result<Fetched, Error>;

/// A token that a flight has fetched.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) token: AccessToken,
    /// The token had expired when it arrived. It serves the callers that waited for it, once.
    pub(super) expired_on_arrival: bool,
}

/// How waiting for a flight ended.
pub(super) enum WaitEnd {
    Outcome(Outcome),
    /// The flight's task was dropped, and left no result.
    Interrupted,
    /// The waiter's time limit was reached.
    TimeUp,
}

/// A flight that has not started yet, with the inputs of its task.
pub(super) struct Departure {
    pub(super) flight: Arc<Flight>,
    pub(super) sender: watch::Sender<Option<Outcome>>,
    pub(super) request: TokenRequest,
    pub(super) delay: Duration,
}

impl Flight {
    /// The flight may send its request at `starts_at`, which is in `delay`.
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

    pub(super) fn reason(&self) -> FetchReason {
        self.reason
    }

    pub(super) fn started_at(&self) -> Moment {
        self.started_at
    }

    /// The runtime that the flight's task runs on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Makes a flight that still waits for its spacing send its request now.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Waits until [`hurry`](Self::hurry) is called.
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Marks the flight as awaited, which allows retries. Call it before spawning: otherwise a flight
    /// that fails before its waiter is first polled makes one attempt only.
    pub(super) fn expect_waiter(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Waits until the flight has ended, without allowing retries.
    pub(super) async fn done(&self) {
        let _ = self.outcome.clone().wait_for(Option::is_some).await;
    }

    /// Returns the maximum wait for the flight. It counts from the flight's start: otherwise callers
    /// with short timeouts would wait for a stuck flight one after another.
    pub(super) fn max_wait(&self, now: Moment) -> Duration {
        now.until(self.overdue_at).max(MIN_WAIT)
    }

    /// Waits for the result: for `max_wait` at most, or until the flight is overdue.
    pub(super) async fn wait(&self, clock: &Clock, max_wait: Option<Duration>) -> WaitEnd {
        self.expect_waiter();
        let mut outcome = self.outcome.clone();
        // The timer is that of the waiter's runtime: the flight's runtime may have stopped.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let max_wait = max_wait.unwrap_or_else(|| self.max_wait(clock.now()));
        let outcome = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome
                    .clone()
                    .map_or(WaitEnd::Interrupted, WaitEnd::Outcome),
                Err(_) => WaitEnd::Interrupted,
            }
        };
        clock
            .timeout(max_wait, &runtime, outcome)
            .await
            .unwrap_or(WaitEnd::TimeUp)
    }
}
