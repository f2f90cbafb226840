//! Time that stands still until a test moves it.

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

/// A clock that stands still until a test moves it: give it to
/// [`TokenCacheBuilder::clock`](crate::TokenCacheBuilder::clock), and hours of refreshing, backoff
/// and outages pass in microseconds.
///
/// Clones share one time. It drives both what the cache *reads* and what it *sleeps* on. Tasks
/// woken by [`advance`](Self::advance) run when the runtime next does: await
/// [`settle`](Self::settle) before looking at what they did.
///
/// ```
/// # use std::time::Duration;
/// use bearer_auth::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(3600)); // an hour passes
/// clock.suspend(Duration::from_secs(7200)); // the machine sleeps: only the wall clock goes on
/// clock.set_back(Duration::from_secs(60)); // somebody corrects the wall clock
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<State>>);

struct State {
    now: Moment,
    /// By deadline (on the monotonic clock, as timers are) and the sleeper's own number.
    sleepers: BTreeMap<(u64, u64), Waker>,
    next_id: u64,
}

impl ManualClock {
    /// A clock that shows an arbitrary fixed time.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            now: Moment {
                monotonic: ORIGIN,
                wall: 1_800_000_000_000_000_000,
            },
            sleepers: BTreeMap::new(),
            next_id: 0,
        })))
    }

    /// Moves both clocks forward and wakes the sleepers whose time has come.
    pub fn advance(&self, duration: Duration) {
        let due = {
            let mut state = self.lock();
            state.now = state.now.after(duration);
            let later = (state.now.monotonic.saturating_add(1), 0);
            let asleep = state.sleepers.split_off(&later);
            std::mem::replace(&mut state.sleepers, asleep)
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// The machine sleeps: the wall clock goes on, the monotonic clock and timers stand still.
    pub fn suspend(&self, duration: Duration) {
        let mut state = self.lock();
        state.now.wall = state.now.wall.saturating_add(nanos(duration));
    }

    /// Sets the wall clock back. The monotonic clock is not touched.
    pub fn set_back(&self, duration: Duration) {
        let mut state = self.lock();
        state.now.wall = state.now.wall.saturating_sub(nanos(duration));
    }

    /// What the wall clock shows.
    pub fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.lock().now.wall)
    }

    /// How long until the next sleeper is due, `None` when nobody sleeps.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let state = self.lock();
        let (deadline, _) = *state.sleepers.keys().next()?;
        Some(Duration::from_nanos(
            deadline.saturating_sub(state.now.monotonic),
        ))
    }

    /// Lets the other tasks of a `current_thread` runtime run until they wait for something.
    pub async fn settle(&self) {
        // Each yield lets the runtime run a batch of the tasks that are ready (61 as a rule), and
        // wake-ups cascade over a few tasks.
        let runtime = tokio::runtime::Handle::try_current();
        let tasks = runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        for _ in 0..64 * (1 + tasks / 32) {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        self.lock().now
    }

    /// Ends when the clock has been moved `duration` on from now: for a source or a service of
    /// your test that takes its time.
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
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
    async fn sleepers_wake_when_time_is_moved_past_them() {
        let clock = ManualClock::new();
        let task = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.settle().await;
        assert_eq!(clock.next_wakeup(), Some(Duration::from_secs(10)));
        clock.advance(Duration::from_millis(9_999));
        clock.settle().await;
        assert!(!task.is_finished());
        clock.suspend(Duration::from_secs(100));
        clock.settle().await;
        assert!(!task.is_finished(), "timers stand still in a suspend");
        clock.advance(Duration::from_millis(1));
        task.await.unwrap();
        assert_eq!(clock.next_wakeup(), None);
    }

    #[tokio::test]
    async fn a_dropped_sleeper_leaves_nothing_behind() {
        let clock = ManualClock::new();
        let task = tokio::spawn(clock.sleep(Duration::from_secs(1)));
        clock.settle().await;
        task.abort();
        clock.settle().await;
        assert_eq!(clock.next_wakeup(), None);
    }
}
