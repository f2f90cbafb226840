//! The reference model: the rules of [the crate's documentation](crate#lifecycle-of-a-token). See
//! [`super`].

use std::collections::HashMap;

use tokio::task::{Id, id};

use super::*;

#[derive(Clone, Debug)]
pub(super) struct KnownToken {
    pub(super) value: String,
    pub(super) expires_at: Option<Moment>,
    /// Before the expiry, like the margin.
    pub(super) refresh_window: Duration,
    pub(super) margin: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) retry: Retry,
    pub(super) wait: Duration,
    pub(super) at: Duration,
}

/// The progress of a flight, by the id of its task.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) attempt: u32,
    /// The last reply, the token's value, and the time of the request.
    pub(super) reply: Option<(Reply, String, Moment)>,
    pub(super) failure: Option<Failure>,
}

/// A call, and the state at its start.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) at: Duration,
    pub(super) had_valid_token: bool,
    /// The number of `forget` steps before the call.
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
    /// The time since the start, by the clock that is ahead.
    pub(super) now: Duration,
    pub(super) clocks_diverged: bool,
    pub(super) starts: Vec<Duration>,
    pub(super) flights: HashMap<Id, Progress>,
    /// The flight that has started and not ended, unless its result is ignored.
    pub(super) flight: Option<Id>,
    /// The number of the last flight that has started.
    pub(super) last_flight: Option<u64>,
    /// The next flight that starts is ignored: it waited for its spacing during a `forget`.
    pub(super) ignores_next_flight: bool,
    pub(super) current: Option<KnownToken>,
    pub(super) landed: Vec<(Duration, String)>,
    pub(super) expired_on_arrival: Vec<(Duration, String)>,
    pub(super) failures: u32,
    /// No flight starts before these, unless a caller forces one.
    pub(super) backoff_until: Option<Duration>,
    pub(super) no_improvement_until: Option<Duration>,
    pub(super) rejections: u32,
    pub(super) rejected_at: Option<Duration>,
    pub(super) rejected_flight_at: Option<Duration>,
    /// The time of the last `refresh`, which forces a flight.
    pub(super) refreshed_at: Option<Duration>,
    pub(super) callers: usize,
    pub(super) forgets: u32,
}

/// Tolerance for the rounding of jitter.
pub(super) const ROUNDING: Duration = Duration::from_micros(1);

impl Rules {
    pub(super) fn moment(&self) -> Moment {
        self.clock.moment()
    }

    pub(super) fn has_reached(&self, deadline: Moment) -> bool {
        let now = self.moment();
        now.monotonic >= deadline.monotonic || now.wall >= deadline.wall
    }

    pub(super) fn is_expired(&self, token: &KnownToken) -> bool {
        token.expires_at.is_some_and(|end| self.has_reached(end))
    }

    /// Whether the rest of the token's lifetime is at most `window`.
    pub(super) fn within(&self, window: Duration, token: &KnownToken) -> bool {
        token
            .expires_at
            .is_some_and(|end| self.has_reached(end.before(window)))
    }

    pub(super) fn valid_token(&self) -> Option<&KnownToken> {
        self.current
            .as_ref()
            .filter(|token| !self.is_expired(token))
    }

    /// How long until the cached token reaches `boundary`, at most a year.
    pub(super) fn until(&self, boundary: Boundary) -> Duration {
        let Some((end, token)) = self.current.as_ref().and_then(|t| Some((t.expires_at?, t)))
        else {
            return Duration::ZERO;
        };
        let before = match boundary {
            Boundary::RefreshWindow => token.refresh_window,
            Boundary::Margin => token.margin,
            Boundary::Expiry => Duration::ZERO,
        };
        let now = self.moment();
        let (monotonic, wall) = (
            end.monotonic - now.monotonic.min(end.monotonic),
            end.wall - now.wall.min(end.wall),
        );
        let left = Duration::from_nanos(monotonic.min(wall));
        left.saturating_sub(before).min(secs(31_536_000))
    }

    /// When the current spacing, backoff or pause ends.
    pub(super) fn blocked(&self) -> Option<Duration> {
        let spacing = self.starts.last().map(|start| *start + secs(1));
        let all = [spacing, self.backoff_until, self.no_improvement_until];
        let last = all.into_iter().flatten().max();
        last.filter(|until| self.now < *until)
    }

    pub(super) fn start_backoff(&mut self, Failure { retry, wait, at }: Failure) {
        self.flight = None;
        self.failures += 1;
        let full = [1, 2, 4, 8, 16, 32, 60][(self.failures as usize - 1).min(6)] as f64;
        let drawn = (full * (1.0 + self.jitter) / 2.0).max(1.0);
        let pause = match retry {
            Retry::Never => secs(300),
            _ => Duration::from_secs_f64(drawn),
        };
        self.backoff_until = Some(at + pause.max(wait.min(secs(600))));
    }

    pub(super) fn on_requested(&mut self, reason: FetchReason, attempt: u32) {
        let this = self.flights.entry(id()).or_default();
        assert_eq!(attempt, this.attempt + 1);
        this.attempt = attempt;
        if attempt > 1 {
            let failure = this.failure.take().expect("a retry follows a failure");
            assert!(attempt <= 3 && failure.retry == Retry::Soon && failure.wait <= secs(3));
            let pause = Duration::from_millis(100 << (attempt - 1)).max(failure.wait);
            assert!(self.now >= failure.at + pause, "attempt {attempt} too soon");
            return;
        }
        if std::mem::take(&mut self.ignores_next_flight) {
            return;
        }
        self.flight = Some(id());
        self.last_flight = self.snapshot().flight.as_ref().map(|flight| flight.id());
        let rejected = self.rejected_at == Some(self.now);
        let refreshed = self.refreshed_at == Some(self.now);
        let is_early = self.blocked().is_some();
        match reason {
            FetchReason::Manual => assert!(refreshed),
            FetchReason::Rejected => self.rejection_flight(),
            // The flight waited for its spacing, and a caller forced it.
            _ if is_early && refreshed => {}
            _ if is_early && rejected => self.rejection_flight(),
            _ => {
                assert!(
                    self.blocked()
                        .is_none_or(|until| until <= self.now + ROUNDING),
                    "{reason:?} too early: {:?}, {:?}, {:?}",
                    self.now,
                    self.starts,
                    self.backoff_until
                );
                if !self.clocks_diverged {
                    self.assert_due(reason);
                }
            }
        }
        self.starts.push(self.now);
    }

    pub(super) fn assert_due(&self, reason: FetchReason) {
        match (&self.current, reason) {
            (None, reason) => assert_eq!(reason, FetchReason::First),
            (Some(token), FetchReason::ExpiresSoon) => {
                assert!(
                    self.within(token.refresh_window + ROUNDING, token)
                        && !self.within(token.margin, token)
                );
            }
            (Some(token), reason) => {
                assert_eq!(reason, FetchReason::Expired);
                assert!(
                    self.within(token.margin + ROUNDING, token),
                    "requested before the margin"
                );
            }
        }
    }

    /// Asserts that a rejection may start a flight: 1 s after the first one, doubling to 60 s, and not
    /// during the backoff after a failure.
    pub(super) fn rejection_flight(&mut self) {
        assert_eq!(
            self.rejected_at,
            Some(self.now),
            "no caller rejected the cached token"
        );
        assert!(
            self.backoff_until
                .is_none_or(|until| self.now + ROUNDING >= until)
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

    pub(super) fn on_failed(&mut self, error: &Error) {
        let last = self.snapshot().error.as_ref().map(Error::to_string);
        let this = self.flights.entry(id()).or_default();
        let (retry, wait) = match this.reply.take() {
            Some((Reply::Error { retry, wait }, ..)) => (retry, wait),
            // The flight timed out.
            _ => (Retry::Later, None),
        };
        let failure = Failure {
            retry,
            wait: secs(wait.unwrap_or_default()),
            at: self.now,
        };
        // All error texts differ. The error that the cache keeps is the one that ended its flight.
        let text = error.to_string();
        let text = text.split_once(';').map_or(&*text, |(text, _)| text);
        if retry != Retry::Soon || last.as_deref() == Some(text) {
            assert_eq!(
                self.flight,
                Some(id()),
                "a superseded flight reported a result"
            );
            self.start_backoff(failure);
        } else {
            this.failure = Some(failure);
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.cache
            .upgrade()
            .expect("the cache was dropped")
            .snapshot
            .load_full()
    }

    pub(super) fn on_obtained(&mut self) {
        assert_eq!(
            self.flight.take(),
            Some(id()),
            "a superseded flight reported a result"
        );
        let this = self.flights.entry(id()).or_default();
        let Some((Reply::Token { lifetime, .. }, value, requested_at)) = this.reply.take() else {
            unreachable!("the source did not return this token");
        };
        (self.failures, self.backoff_until, self.no_improvement_until) = (0, None, None);
        let new = self.known_token(value.clone(), requested_at, lifetime);
        let expired = self.is_expired(&new);
        self.landed.push((self.now, value.clone()));
        let (kept, expired) = match self.current.take() {
            Some(old) if old.value == value => {
                let kept = match (old.expires_at, new.expires_at) {
                    (Some(_), expires_at @ Some(_)) => KnownToken { expires_at, ..old },
                    (Some(_), None) => old,
                    (None, _) => new,
                };
                self.no_improvement(&kept);
                let expired = self.is_expired(&kept);
                (kept, expired)
            }
            Some(old) if expired && !self.is_expired(&old) => {
                self.no_improvement(&old);
                (old, expired)
            }
            _ => (new, expired),
        };
        if expired {
            self.expired_on_arrival.push((self.now, value));
        }
        self.current = Some(kept);
    }

    /// The next attempt is due after a quarter of the token's remaining lifetime.
    pub(super) fn no_improvement(&mut self, token: &KnownToken) {
        let now = self.moment();
        let rest = token.expires_at.map_or(Duration::ZERO, |end| {
            let monotonic = end.monotonic.saturating_sub(now.monotonic);
            Duration::from_nanos(monotonic.min(end.wall.saturating_sub(now.wall)))
        });
        self.no_improvement_until = Some(self.now + (rest / 4).max(secs(1)));
    }

    pub(super) fn known_token(
        &self,
        value: String,
        requested_at: Moment,
        lifetime: Option<Duration>,
    ) -> KnownToken {
        let life = lifetime.unwrap_or_default();
        let longest = if life < secs(4 * 3_600) {
            secs(900)
        } else {
            secs(3_600)
        };
        let margin = (life / 10).min(secs(10));
        let window = (life / 4).min(longest).mul_f64(0.75 + self.jitter / 4.0);
        KnownToken {
            value,
            expires_at: lifetime.map(|life| requested_at.after(life)),
            refresh_window: window.max(margin),
            margin,
        }
    }

    pub(super) fn on_call(&mut self) -> Call {
        self.callers += 1;
        Call {
            at: self.now,
            had_valid_token: self.valid_token().is_some(),
            forgets: self.forgets,
        }
    }

    /// Asserts that a caller may use `token`, which the cache returned.
    pub(super) fn assert_usable(&self, token: &AccessToken) {
        let value = token.expose_secret().to_owned();
        let this = (self.now, value.clone());
        // It serves the callers that waited for it.
        if self.expired_on_arrival.contains(&this) {
            return;
        }
        let current = self.current.as_ref().map(|token| &token.value);
        assert_eq!(Some(&value), current, "not the newest token");
        assert!(self.valid_token().is_some(), "the token has expired");
    }

    /// Asserts that the error's `retry_after` is when the next flight may start.
    fn assert_retry_after(&self, error: &Error) {
        let (Some(reported), Some(backoff)) = (error.retry_after(), self.backoff_until) else {
            return;
        };
        let reported = self.now + reported;
        let is_exact = reported.abs_diff(self.blocked().unwrap_or(backoff)) <= ROUNDING;
        assert!(
            self.clocks_diverged || is_exact,
            "{reported:?}, not {backoff:?}"
        );
    }

    pub(super) fn on_return(&mut self, call: Call, result: Result<AccessToken, Error>) {
        self.callers -= 1;
        match result {
            Ok(token) => self.assert_usable(&token),
            Err(error) => {
                assert!(self.valid_token().is_none(), "{error} with a valid token");
                self.assert_retry_after(&error);
            }
        }
        if call.had_valid_token && call.forgets == self.forgets && !self.clocks_diverged {
            let flight = self.starts.last().copied().unwrap_or_default();
            let latest = call.at.max(flight + secs(1));
            assert!(
                self.now <= latest,
                "waited from {:?} to {:?} with a valid token: {:?}",
                call.at,
                self.now,
                self.starts
            );
        }
    }
}
