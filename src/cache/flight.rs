//! A flight: one token request, shared by all callers that wait for it (single flight).
//!
//! The task of the flight (`fetch.rs`) holds the sender of a `watch` channel, every waiter a
//! receiver. A channel that closes without a value means that the task was dropped.

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

/// How long after its own limit a flight is overdue. That happens only when nothing drives its
/// runtime.
const GRACE: Duration = Duration::from_secs(1);
/// An overdue flight gets this long to end after all: a runtime that stood still between two calls
/// of `block_on` may have been driven again just now.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A token request in flight, as its waiters see it.
pub(super) struct Flight {
    id: u64,
    reason: FetchReason,
    started_at: Moment,
    /// When the flight's own limit should have ended it.
    overdue_at: Moment,
    /// A caller waits: worth more than one attempt.
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
    /// The waiter's own time has passed.
    TimeUp,
}

/// A flight that has not started yet, and what its task needs.
pub(super) struct Departure {
    pub(super) flight: Arc<Flight>,
    pub(super) sender: watch::Sender<Option<Outcome>>,
    pub(super) request: TokenRequest,
    pub(super) delay: Duration,
}

impl Flight {
    /// `delay`: how long until the flight may send its request; `starts_at` is when that will be.
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

    /// Marks the token request as awaited, which allows retries. Call it before spawning:
    /// otherwise a request that fails before its waiter is first polled gets one attempt only.
    pub(super) fn expect_waiter(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Waits until the flight has ended, without asking for more attempts.
    pub(super) async fn done(&self) {
        let _ = self.outcome.clone().wait_for(Option::is_some).await;
    }

    /// How long the flight is worth waiting for. It counts from the flight's start: callers with
    /// short deadlines of their own would otherwise wait for a dead flight one after another.
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
        let outcome = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome
                    .clone()
                    .map_or(WaitEnd::Interrupted, WaitEnd::Outcome),
                Err(_) => WaitEnd::Interrupted,
            }
        };
        clock
            .timeout(longest, &runtime, outcome)
            .await
            .unwrap_or(WaitEnd::TimeUp)
    }
}
