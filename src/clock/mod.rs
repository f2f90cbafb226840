//! The only file that reads time and sleeps.
//!
//! A [`Moment`] is read on two clocks. The time between two moments is the *larger* of the two
//! differences, so that elapsed time is never underestimated:
//! - The monotonic clock stops while a laptop is suspended: alone, it would use an expired token.
//! - The wall clock can be set back: alone, it would prolong a token.
//!
//! A wall clock that is set forward only causes an early refresh.
//!
//! Every request reads the time, and lifetimes are in seconds. So on Linux both are the kernel's coarse
//! clocks (a few milliseconds late, a fifth of the cost), and the wall clock is read only after the
//! monotonic clock has moved.

#[cfg(feature = "testing")]
mod manual;
mod pauses;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::runtime::Handle;

#[cfg(feature = "testing")]
pub use self::manual::ManualClock;
pub(crate) use self::pauses::Pauses;

/// The clock of a [`TokenCache`](crate::TokenCache): the system clock, or a `testing::ManualClock`.
///
/// Defaults to the system clock.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    #[cfg(feature = "testing")]
    Manual(manual::ManualClock),
}

impl Clock {
    /// Returns the time on both clocks.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        match &self.0 {
            Source::System => system_now(),
            #[cfg(feature = "testing")]
            Source::Manual(clock) => clock.moment(),
        }
    }

    /// Returns the time on the wall clock.
    pub(crate) fn system_time(&self) -> SystemTime {
        let now = self.now().system_time();
        now.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Returns a future that completes after `duration`. A system timer belongs to `runtime`, on any
    /// task that polls it.
    pub(crate) fn sleep(&self, duration: Duration, runtime: &Handle) -> Sleep {
        match &self.0 {
            Source::System => {
                // A timer belongs to the runtime in whose context it is created.
                let _entered = runtime.enter();
                #[expect(clippy::disallowed_methods, reason = "this is the one place")]
                let sleep = tokio::time::sleep(duration);
                Sleep::System {
                    sleep: Box::pin(sleep),
                }
            }
            #[cfg(feature = "testing")]
            Source::Manual(clock) => Sleep::Manual {
                sleep: clock.timer(duration),
            },
        }
    }

    /// Like [`sleep`](Self::sleep), for a delay that tests need not wait for: a
    /// `ManualClock::auto_advance` ends it. Not for limits: these would end at once.
    pub(crate) fn pause(&self, duration: Duration, runtime: &Handle) -> Sleep {
        match &self.0 {
            Source::System => self.sleep(duration, runtime),
            #[cfg(feature = "testing")]
            Source::Manual(clock) => Sleep::Manual {
                sleep: clock.pause(duration),
            },
        }
    }

    /// Runs `future`. Returns `None` if `duration` passes first.
    pub(crate) async fn timeout<F: Future>(
        &self,
        duration: Duration,
        runtime: &Handle,
        future: F,
    ) -> Option<F::Output> {
        self.sleep(duration, runtime).unless(future).await
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::System => "Clock::System",
            #[cfg(feature = "testing")]
            Source::Manual(_) => "Clock::Manual",
        })
    }
}

#[cfg(feature = "testing")]
impl From<manual::ManualClock> for Clock {
    fn from(clock: manual::ManualClock) -> Self {
        Self(Source::Manual(clock))
    }
}

/// A point in time on both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Since a fixed point of this boot or process.
    pub(crate) monotonic: u64,
    /// Since the Unix epoch.
    pub(crate) wall: u64,
}

impl Moment {
    /// Later than any other moment.
    pub(crate) const NEVER: Self = Self {
        monotonic: u64::MAX,
        wall: u64::MAX,
    };

    /// Returns the time since `earlier`: the larger of the two clocks' differences.
    #[inline]
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        let monotonic = self.monotonic.saturating_sub(earlier.monotonic);
        let wall = self.wall.saturating_sub(earlier.wall);
        Duration::from_nanos(monotonic.max(wall))
    }

    /// Returns the moment `duration` later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let nanos = nanos(duration);
        Self {
            monotonic: self.monotonic.saturating_add(nanos),
            wall: self.wall.saturating_add(nanos),
        }
    }

    /// Returns the moment `duration` earlier.
    pub(crate) fn before(self, duration: Duration) -> Self {
        let nanos = nanos(duration);
        Self {
            monotonic: self.monotonic.saturating_sub(nanos),
            wall: self.wall.saturating_sub(nanos),
        }
    }

    /// Returns the later of both, on each clock.
    pub(crate) fn max(self, other: Moment) -> Self {
        Self {
            monotonic: self.monotonic.max(other.monotonic),
            wall: self.wall.max(other.wall),
        }
    }

    /// Returns the time until `later`: zero as soon as *one* of the clocks has reached it.
    pub(crate) fn until(self, later: Moment) -> Duration {
        let monotonic = later.monotonic.saturating_sub(self.monotonic);
        let wall = later.wall.saturating_sub(self.wall);
        Duration::from_nanos(monotonic.min(wall))
    }

    /// Returns whether one of the clocks has reached `deadline`.
    #[inline]
    pub(crate) fn reached(self, deadline: Moment) -> bool {
        self.monotonic >= deadline.monotonic || self.wall >= deadline.wall
    }

    /// Returns the time on the wall clock.
    pub(crate) fn system_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(self.wall))
    }
}

/// The future of [`Clock::sleep`].
pub(crate) enum Sleep {
    System {
        sleep: Pin<Box<tokio::time::Sleep>>,
    },
    #[cfg(feature = "testing")]
    Manual {
        sleep: manual::ManualSleep,
    },
}

impl Sleep {
    /// Runs `future`. Returns `None` if this sleep ends first.
    pub(crate) async fn unless<F: Future>(mut self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            Pin::new(&mut self).poll(cx).map(|()| None)
        })
        .await
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Sleep::System { sleep } => sleep.as_mut().poll(cx),
            #[cfg(feature = "testing")]
            Sleep::Manual { sleep } => Pin::new(sleep).poll(cx),
        }
    }
}

/// The monotonic clock starts a century after zero, so that a token can be older than the process or
/// the boot.
pub(crate) const ORIGIN: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000_000;

/// Converts to nanoseconds, 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn system_now() -> Moment {
    use std::cell::Cell;

    use rustix::time::{ClockId, clock_gettime};

    thread_local! {
        static LAST: Cell<Moment> = const { Cell::new(Moment { monotonic: 0, wall: 0 }) };
    }

    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
    };
    let monotonic = ORIGIN.wrapping_add(read(ClockId::MonotonicCoarse));
    let last = LAST.get();
    // The kernel advances both in the same tick: within a tick, the wall clock has not moved.
    if monotonic == last.monotonic {
        return last;
    }
    let wall = read(ClockId::RealtimeCoarse);
    let now = Moment { monotonic, wall };
    LAST.set(now);
    now
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn system_now() -> Moment {
    use std::{sync::OnceLock, time::Instant};

    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Moment {
        monotonic: ORIGIN + nanos(start.elapsed()),
        wall: nanos(
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(monotonic: u64, wall: u64) -> Moment {
        Moment { monotonic, wall }
    }

    #[test]
    fn elapsed_time_is_the_larger_of_both_clocks() {
        let start = at(1_000, 50_000);
        assert_eq!(at(1_500, 50_500).since(start), Duration::from_nanos(500));
        // Suspended: the monotonic clock stood still.
        assert_eq!(at(1_000, 59_000).since(start), Duration::from_nanos(9_000));
        // The wall clock was set back.
        assert_eq!(at(1_700, 10_000).since(start), Duration::from_nanos(700));
        // Never negative.
        assert_eq!(at(900, 49_000).since(start), Duration::ZERO);
    }

    #[test]
    fn deadline_is_reached_when_one_clock_reaches_it() {
        let deadline = at(1_000, 50_000).after(Duration::from_nanos(100));
        assert!(!at(1_099, 50_099).reached(deadline));
        assert!(at(1_100, 50_000).reached(deadline));
        assert!(at(1_000, 50_100).reached(deadline));
        assert_eq!(
            at(1_040, 50_010).until(deadline),
            Duration::from_nanos(60),
            "the shorter of the two"
        );
        assert_eq!(at(1_200, 50_000).until(deadline), Duration::ZERO);
    }

    #[test]
    fn system_clock_moves_forward() {
        let clock = Clock::default();
        let first = clock.now();
        assert!(first.wall > 1_600_000_000_000_000_000);
        assert!(clock.now().monotonic >= first.monotonic);
        assert_eq!(format!("{clock:?}"), "Clock::System");
    }
}
