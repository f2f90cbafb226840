//! [`ManualClock`]: a clock for tests.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use super::{Moment, ORIGIN, nanos};

/// A clock that only a test advances. With it as
/// [`TokenCacheBuilder::clock`](crate::TokenCacheBuilder::clock), hours of refreshing, backoff and
/// outages pass in microseconds.
///
/// Clones share one time, which the cache reads and sleeps on. [`advance`](Self::advance) wakes tasks
/// but does not run them: await [`settle`](Self::settle) before you check their results. A test that
/// does not want to move the clock itself uses [`auto_advance`](Self::auto_advance).
///
/// ```
/// # use std::time::Duration;
/// use bearer_auth::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(3600)); // an hour passes
/// clock.suspend(Duration::from_secs(7200)); // the machine is suspended: only the wall clock advances
/// clock.set_back(Duration::from_secs(60)); // the wall clock is corrected
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<State>>);

struct State {
    now: Moment,
    /// By deadline on the monotonic clock, and the sleeper's number.
    sleepers: BTreeMap<(u64, u64), Waker>,
    next_id: u64,
    auto_advance: bool,
}

impl ManualClock {
    /// Returns a clock at an arbitrary fixed time.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Moment {
                monotonic: ORIGIN,
                wall: 1_800_000_000_000_000_000,
            },
            sleepers: BTreeMap::new(),
            next_id: 0,
            auto_advance: false,
        })))
    }

    /// Makes this clock and its clones advance by themselves when the cache pauses before the next token
    /// request, and when a delayed `testing::Answer` is due. The pause then takes no time. By default,
    /// it lasts until a test calls [`advance`](Self::advance).
    ///
    /// Limits, lifetimes and the times of background refreshes do not advance the clock: a token does
    /// not expire, and a server that never answers is not timed out, until a test advances the clock. A
    /// delay of an answer that is longer than the limit of the request ends in a timeout.
    ///
    /// ```
    /// use bearer_auth::testing::{Answer, ManualClock, MockIdp};
    /// use bearer_auth::{ClientCredentials, TokenCache};
    ///
    /// # #[cfg(feature = "reqwest")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bearer_auth::BoxError> {
    /// let clock = ManualClock::new().auto_advance();
    /// let idp = MockIdp::builder().clock(clock.clone()).start().await?;
    /// let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
    /// let cache = TokenCache::builder(source).clock(clock).build();
    ///
    /// idp.always(Answer::status(503));
    /// assert!(cache.token().await.is_err());
    /// assert_eq!(idp.token_requests(), 3);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "reqwest"))]
    /// # fn main() {}
    /// ```
    pub fn auto_advance(self) -> Self {
        self.lock().auto_advance = true;
        self
    }

    /// Advances both clocks, and wakes the sleepers that are due.
    pub fn advance(&self, duration: Duration) {
        let due = self.lock().advance(duration);
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// Advances both clocks to a deadline on the monotonic clock, unless it has passed.
    fn advance_to(&self, deadline: u64) {
        let due = {
            let mut state = self.lock();
            let duration = deadline.saturating_sub(state.now.monotonic);
            state.advance(Duration::from_nanos(duration))
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// Simulates a suspended machine: advances the wall clock, but not the monotonic clock and timers.
    pub fn suspend(&self, duration: Duration) {
        let mut state = self.lock();
        state.now.wall = state.now.wall.saturating_add(nanos(duration));
    }

    /// Sets the wall clock back. The monotonic clock does not change.
    pub fn set_back(&self, duration: Duration) {
        let mut state = self.lock();
        state.now.wall = state.now.wall.saturating_sub(nanos(duration));
    }

    /// Returns the time on the wall clock.
    pub fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.lock().now.wall)
    }

    /// Returns how long until the next sleeper is due. `None`: there is no sleeper.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let state = self.lock();
        let (deadline, _) = *state.sleepers.keys().next()?;
        Some(Duration::from_nanos(
            deadline.saturating_sub(state.now.monotonic),
        ))
    }

    /// Runs the other tasks of a `current_thread` runtime until all of them wait.
    pub async fn settle(&self) {
        // Each yield runs a batch of the ready tasks (usually 61), and wake-ups cascade over a few
        // tasks.
        let runtime = tokio::runtime::Handle::try_current();
        let tasks = runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        for _ in 0..64 * (1 + tasks / 32) {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        self.lock().now
    }

    /// Completes when the clock has advanced by `duration`. Use it in a slow source or service of a
    /// test.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.timer(duration)
    }

    pub(crate) fn timer(&self, duration: Duration) -> ManualSleep {
        let mut state = self.lock();
        state.next_id += 1;
        ManualSleep {
            clock: self.clone(),
            deadline: state.now.after(duration).monotonic,
            id: state.next_id,
            advances: false,
        }
    }

    /// A timer that advances the clock to its deadline, with [`auto_advance`](Self::auto_advance).
    pub(crate) fn pause(&self, duration: Duration) -> ManualSleep {
        let mut sleep = self.timer(duration);
        sleep.advances = self.lock().auto_advance;
        sleep
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Advances both clocks, and returns the sleepers that are due.
    fn advance(&mut self, duration: Duration) -> BTreeMap<(u64, u64), Waker> {
        self.now = self.now.after(duration);
        let later = (self.now.monotonic.saturating_add(1), 0);
        let asleep = self.sleepers.split_off(&later);
        std::mem::replace(&mut self.sleepers, asleep)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("ManualClock")
            .field("now", &state.now)
            .field("sleepers", &state.sleepers.len())
            .finish()
    }
}

/// A timer of a [`ManualClock`].
pub(crate) struct ManualSleep {
    clock: ManualClock,
    deadline: u64,
    id: u64,
    advances: bool,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.advances {
            self.clock.advance_to(self.deadline);
        }
        let mut state = self.clock.lock();
        if state.now.monotonic >= self.deadline {
            return Poll::Ready(());
        }
        let key = (self.deadline, self.id);
        state.sleepers.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        let key = (self.deadline, self.id);
        self.clock.lock().sleepers.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_the_clock_advances_past_them() {
        let clock = ManualClock::new();
        let task = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.settle().await;
        assert_eq!(clock.next_wakeup(), Some(Duration::from_secs(10)));
        clock.advance(Duration::from_millis(9_999));
        clock.settle().await;
        assert!(!task.is_finished());
        clock.suspend(Duration::from_secs(100));
        clock.settle().await;
        assert!(!task.is_finished(), "timers stop during a suspend");
        clock.advance(Duration::from_millis(1));
        task.await.unwrap();
        assert_eq!(clock.next_wakeup(), None);
    }

    #[tokio::test]
    async fn auto_advance_ends_pauses_and_no_other_sleep() {
        let clock = ManualClock::new().auto_advance();
        let start = clock.system_time();
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.settle().await;
        assert_eq!(clock.next_wakeup(), Some(Duration::from_secs(10)));
        clock.pause(Duration::from_secs(4)).await;
        assert_eq!(clock.system_time(), start + Duration::from_secs(4));
        assert_eq!(clock.next_wakeup(), Some(Duration::from_secs(6)));
        // Two pauses at the same time take the longer one, in either order.
        let (long, short) = (Duration::from_secs(6), Duration::from_secs(1));
        let (long, short) = (clock.pause(long), clock.pause(short));
        long.await;
        short.await;
        assert_eq!(clock.system_time(), start + Duration::from_secs(10));
        sleeper.await.unwrap();
    }

    #[tokio::test]
    async fn dropped_sleeper_is_removed() {
        let clock = ManualClock::new();
        let task = tokio::spawn(clock.sleep(Duration::from_secs(1)));
        clock.settle().await;
        task.abort();
        clock.settle().await;
        assert_eq!(clock.next_wakeup(), None);
    }
}
