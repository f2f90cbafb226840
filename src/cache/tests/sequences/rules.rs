//! The rules of [the crate's documentation](crate#lifecycle-of-a-token), written down once more: see
//! [`super`].

use std::collections::HashMap;

use tokio::task::{Id, id};

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) value: String,
    pub(super) end: Option<Moment>,
    /// Before its end.
    pub(super) ageing: Duration,
    pub(super) margin: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) retry: Retry,
    pub(super) wait: Duration,
    pub(super) at: Duration,
}

/// What a flight has come to so far; it is known by its task.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) number: u32,
    /// What was brought last, and asked for when.
    pub(super) brought: Option<(Brings, String, Moment)>,
    pub(super) fault: Option<Fault>,
}

/// Who was called when.
#[derive(Clone, Copy)]
pub(super) struct Called {
    pub(super) at: Duration,
    /// There was a token, and it had not ended.
    pub(super) in_hand: bool,
    /// How often all had been forgotten.
    pub(super) forgets: u32,
}

#[derive(Default)]
pub(super) struct Rules {
    pub(super) clock: ManualClock,
    pub(super) cache: Weak<Shared>,
    pub(super) jitter: f64,
    pub(super) answers: Vec<Answer>,
    pub(super) fetches: usize,
    pub(super) tokens: u32,
    /// Since the beginning, as much as any clock can make of it.
    pub(super) now: Duration,
    /// The clocks went apart.
    pub(super) apart: bool,
    pub(super) starts: Vec<Duration>,
    pub(super) flights: HashMap<Id, Attempts>,
    /// The flight that has begun and not ended, if what it brings counts.
    pub(super) flight: Option<Id>,
    /// The number of the last that has begun.
    pub(super) begun: Option<u64>,
    /// The next that begins does not count: it was about to when all was forgotten.
    pub(super) forgotten: bool,
    pub(super) current: Option<Known>,
    pub(super) landed: Vec<(Duration, String)>,
    pub(super) dead_on_arrival: Vec<(Duration, String)>,
    pub(super) failures: u32,
    /// Before these, no flight that nobody forces.
    pub(super) after_failure: Option<Duration>,
    pub(super) after_vain: Option<Duration>,
    pub(super) rejections: u32,
    pub(super) rejected_at: Option<Duration>,
    pub(super) rejected_flight_at: Option<Duration>,
    /// Somebody forced a flight at this time.
    pub(super) refreshed_at: Option<Duration>,
    pub(super) callers: usize,
    pub(super) forgets: u32,
}

/// Of jitter's rounding.
pub(super) const A_BIT: Duration = Duration::from_micros(1);

impl Rules {
    pub(super) fn moment(&self) -> Moment {
        self.clock.moment()
    }

    pub(super) fn has_reached(&self, end: Moment) -> bool {
        let now = self.moment();
        now.monotonic >= end.monotonic || now.wall >= end.wall
    }

    pub(super) fn over(&self, token: &Known) -> bool {
        token.end.is_some_and(|end| self.has_reached(end))
    }

    pub(super) fn within(&self, before_end: Duration, token: &Known) -> bool {
        token
            .end
            .is_some_and(|end| self.has_reached(end.before(before_end)))
    }

    pub(super) fn in_hand(&self) -> Option<&Known> {
        self.current.as_ref().filter(|token| !self.over(token))
    }

    /// How long until the token in hand comes to `boundary`, at most a year.
    pub(super) fn until(&self, boundary: Boundary) -> Duration {
        let Some((end, token)) = self.current.as_ref().and_then(|t| Some((t.end?, t))) else {
            return Duration::ZERO;
        };
        let before = match boundary {
            Boundary::Ageing => token.ageing,
            Boundary::Margin => token.margin,
            Boundary::End => Duration::ZERO,
        };
        let now = self.moment();
        let (monotonic, wall) = (
            end.monotonic - now.monotonic.min(end.monotonic),
            end.wall - now.wall.min(end.wall),
        );
        let left = Duration::from_nanos(monotonic.min(wall));
        left.saturating_sub(before).min(secs(31_536_000))
    }

    /// Until when the spacing or a pause lasts, if one does.
    pub(super) fn blocked(&self) -> Option<Duration> {
        let spacing = self.starts.last().map(|start| *start + secs(1));
        let all = [spacing, self.after_failure, self.after_vain];
        let last = all.into_iter().flatten().max();
        last.filter(|until| self.now < *until)
    }

    pub(super) fn flight_failed(&mut self, Fault { retry, wait, at }: Fault) {
        self.flight = None;
        self.failures += 1;
        let longest = [1, 2, 4, 8, 16, 32, 60][(self.failures as usize - 1).min(6)] as f64;
        let drawn = (longest * (1.0 + self.jitter) / 2.0).max(1.0);
        let pause = match retry {
            Retry::Never => secs(300),
            _ => Duration::from_secs_f64(drawn),
        };
        self.after_failure = Some(at + pause.max(wait.min(secs(600))));
    }

    pub(super) fn asked(&mut self, reason: FetchReason, attempt: u32) {
        let this = self.flights.entry(id()).or_default();
        assert_eq!(attempt, this.number + 1);
        this.number = attempt;
        if attempt > 1 {
            let fault = this
                .fault
                .take()
                .expect("another attempt is after a failure");
            assert!(attempt <= 3 && fault.retry == Retry::Soon && fault.wait <= secs(3));
            let pause = Duration::from_millis(100 << (attempt - 1)).max(fault.wait);
            assert!(self.now >= fault.at + pause, "attempt {attempt} too soon");
            return;
        }
        if std::mem::take(&mut self.forgotten) {
            return;
        }
        self.flight = Some(id());
        self.begun = self.shown().flight.as_ref().map(|flight| flight.id());
        let rejected = self.rejected_at == Some(self.now);
        let refreshed = self.refreshed_at == Some(self.now);
        let waited = self.blocked().is_some();
        match reason {
            FetchReason::Manual => assert!(refreshed),
            FetchReason::Rejected => self.rejection_flight(),
            // It waited for its time, and somebody was in a hurry.
            _ if waited && refreshed => {}
            _ if waited && rejected => self.rejection_flight(),
            _ => {
                assert!(
                    self.blocked().is_none_or(|until| until <= self.now + A_BIT),
                    "{reason:?} before its time: {:?}, {:?}, {:?}",
                    self.now,
                    self.starts,
                    self.after_failure
                );
                if !self.apart {
                    self.is_wanted(reason);
                }
            }
        }
        self.starts.push(self.now);
    }

    pub(super) fn is_wanted(&self, reason: FetchReason) {
        match (&self.current, reason) {
            (None, reason) => assert_eq!(reason, FetchReason::First),
            (Some(token), FetchReason::ExpiresSoon) => {
                assert!(
                    self.within(token.ageing + A_BIT, token) && !self.within(token.margin, token)
                );
            }
            (Some(token), reason) => {
                assert_eq!(reason, FetchReason::Expired);
                assert!(
                    self.within(token.margin + A_BIT, token),
                    "asked ahead of the margin"
                );
            }
        }
    }

    /// 1 s after the first, doubling to 60 s; not in a pause after a failure.
    pub(super) fn rejection_flight(&mut self) {
        assert_eq!(
            self.rejected_at,
            Some(self.now),
            "nobody rejected the token in hand"
        );
        assert!(
            self.after_failure
                .is_none_or(|until| self.now + A_BIT >= until)
        );
        if let Some(last) = self.rejected_flight_at.filter(|_| self.rejections > 0) {
            let pause = [1, 2, 4, 8, 16, 32, 60][(self.rejections as usize - 1).min(6)];
            assert!(
                self.now >= last + secs(pause),
                "after {} rejections",
                self.rejections
            );
        }
        self.rejections += 1;
        self.rejected_flight_at = Some(self.now);
    }

    pub(super) fn failed(&mut self, error: &Error) {
        let last = self.shown().error.as_ref().map(Error::to_string);
        let this = self.flights.entry(id()).or_default();
        let (retry, wait) = match this.brought.take() {
            Some((Brings::Error { retry, wait }, ..)) => (retry, wait),
            // It took too long.
            _ => (Retry::Later, None),
        };
        let fault = Fault {
            retry,
            wait: secs(wait.unwrap_or_default()),
            at: self.now,
        };
        // All errors are different: it is the last when it ended its flight.
        let told = error.to_string();
        let told = told.split_once(';').map_or(&*told, |(told, _)| told);
        if retry != Retry::Soon || last.as_deref() == Some(told) {
            assert_eq!(self.flight, Some(id()), "a flight that had been given up");
            self.flight_failed(fault);
        } else {
            this.fault = Some(fault);
        }
    }

    pub(super) fn shown(&self) -> Arc<Snapshot> {
        self.cache
            .upgrade()
            .expect("the cache")
            .snapshot
            .load_full()
    }

    pub(super) fn obtained(&mut self) {
        assert_eq!(
            self.flight.take(),
            Some(id()),
            "a flight that had been given up"
        );
        let this = self.flights.entry(id()).or_default();
        let Some((Brings::Token { lifetime, .. }, value, asked_at)) = this.brought.take() else {
            unreachable!("a token that was not brought");
        };
        (self.failures, self.after_failure, self.after_vain) = (0, None, None);
        let new = self.known(value.clone(), asked_at, lifetime);
        let dead = self.over(&new);
        self.landed.push((self.now, value.clone()));
        let (kept, dead) = match self.current.take() {
            Some(old) if old.value == value => {
                let kept = match (old.end, new.end) {
                    (Some(_), end @ Some(_)) => Known { end, ..old },
                    (Some(_), None) => old,
                    (None, _) => new,
                };
                self.in_vain(&kept);
                let dead = self.over(&kept);
                (kept, dead)
            }
            Some(old) if dead && !self.over(&old) => {
                self.in_vain(&old);
                (old, dead)
            }
            _ => (new, dead),
        };
        if dead {
            self.dead_on_arrival.push((self.now, value));
        }
        self.current = Some(kept);
    }

    /// The next try comes after a quarter of the rest of its life.
    pub(super) fn in_vain(&mut self, token: &Known) {
        let now = self.moment();
        let rest = token.end.map_or(Duration::ZERO, |end| {
            let monotonic = end.monotonic.saturating_sub(now.monotonic);
            Duration::from_nanos(monotonic.min(end.wall.saturating_sub(now.wall)))
        });
        self.after_vain = Some(self.now + (rest / 4).max(secs(1)));
    }

    pub(super) fn known(
        &self,
        value: String,
        asked_at: Moment,
        lifetime: Option<Duration>,
    ) -> Known {
        let life = lifetime.unwrap_or_default();
        let longest = if life < secs(4 * 3_600) {
            secs(900)
        } else {
            secs(3_600)
        };
        let margin = (life / 10).min(secs(10));
        let ageing = (life / 4).min(longest).mul_f64(0.75 + self.jitter / 4.0);
        Known {
            value,
            end: lifetime.map(|life| asked_at.after(life)),
            ageing: ageing.max(margin),
            margin,
        }
    }

    pub(super) fn called(&mut self) -> Called {
        self.callers += 1;
        Called {
            at: self.now,
            in_hand: self.in_hand().is_some(),
            forgets: self.forgets,
        }
    }

    /// A caller goes on with `token`.
    pub(super) fn goes(&self, token: &AccessToken) {
        let value = token.expose_secret().to_owned();
        let this = (self.now, value.clone());
        // For those who waited, at that moment.
        if self.dead_on_arrival.contains(&this) {
            return;
        }
        let current = self.current.as_ref().map(|token| &token.value);
        assert_eq!(Some(&value), current, "there is a newer one");
        assert!(self.in_hand().is_some(), "past its end");
    }

    /// What callers are told is when the next flight may start.
    fn says_when(&self, error: &Error) {
        let (Some(told), Some(failed)) = (error.retry_after(), self.after_failure) else {
            return;
        };
        let told = self.now + told;
        let right = told.abs_diff(self.blocked().unwrap_or(failed)) <= A_BIT;
        assert!(self.apart || right, "{told:?}, not {failed:?}");
    }

    pub(super) fn returned(&mut self, called: Called, result: Result<AccessToken, Error>) {
        self.callers -= 1;
        match result {
            Ok(token) => self.goes(&token),
            Err(error) => {
                assert!(self.in_hand().is_none(), "{error} with a token in hand");
                self.says_when(&error);
            }
        }
        if called.in_hand && called.forgets == self.forgets && !self.apart {
            let flight = self.starts.last().copied().unwrap_or_default();
            let waited = called.at.max(flight + secs(1));
            assert!(
                self.now <= waited,
                "waited from {:?} to {:?} with a token in hand: {:?}",
                called.at,
                self.now,
                self.starts
            );
        }
    }
}
