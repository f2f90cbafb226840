//! The lifecycle of a token as a pure function of state and time: no I/O, no lock, no clock.
//!
//! ```text
//! anchor                 refresh_at            due_at      expires_at
//!   |--------- Fresh --------|-- RefreshAhead ---|--- Due -----|--- Due, no fallback
//!                            |   in background   |  awaited,   |  awaited
//!                            |   without waiting |  briefly    |
//! ```
//!
//! While spacing or a backoff forbids a token request, `RefreshAhead` becomes `Fresh`, and `Due`
//! becomes `BackingOff`.
//!
//! Invariants, each a test below:
//! - A token past `expires_at` is never `Fresh`, `RefreshAhead` or a fallback.
//! - Only the passing of time moves a state towards the right.

use std::time::Duration;

use crate::{clock::Moment, token::max_refresh_window};

/// The refresh window is multiplied by a factor drawn from here to 1 for each token.
const MIN_JITTER: f64 = 0.75;

/// The safety margin before a token expires.
pub(super) const SAFETY_MARGIN: Duration = Duration::from_secs(10);
/// The safety margin is at most this share of the lifetime.
const MARGIN_SHARE: u32 = 10;

/// Token requests start at least this far apart, unless a caller forces one.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// Maximum wait of a caller with a valid cached token for a newer one.
pub(super) const MAX_WAIT_WITH_FALLBACK: Duration = Duration::from_secs(1);

/// When a token is refreshed ahead, is due for replacement, and expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    refresh_at: Moment,
    due_at: Moment,
    expires_at: Moment,
    /// From `refresh_at` to `expires_at`.
    refresh_window: Duration,
    /// From `due_at` to `expires_at`.
    margin: Duration,
}

impl Schedule {
    /// For a token requested at `anchor` with a lifetime of `lifetime`. `jitter` is in [0, 1].
    pub(super) fn new(anchor: Moment, lifetime: Duration, margin: Duration, jitter: f64) -> Self {
        let factor = MIN_JITTER + (1.0 - MIN_JITTER) * jitter.clamp(0.0, 1.0);
        let margin = margin.min(lifetime / MARGIN_SHARE);
        let refresh_window = max_refresh_window(lifetime).mul_f64(factor);
        Self::ending(anchor.after(lifetime), refresh_window.max(margin), margin)
    }

    /// For a token that the server returned again with the rest of its lifetime: the expiry is the
    /// newer one, and the margins stay those of the first schedule.
    pub(super) fn renewed(self, expires_at: Moment) -> Self {
        Self::ending(expires_at, self.refresh_window, self.margin)
    }

    fn ending(expires_at: Moment, refresh_window: Duration, margin: Duration) -> Self {
        Self {
            refresh_at: expires_at.before(refresh_window),
            due_at: expires_at.before(margin),
            expires_at,
            refresh_window,
            margin,
        }
    }

    pub(super) fn expires_at(&self) -> Moment {
        self.expires_at
    }

    pub(super) fn refresh_at(&self) -> Moment {
        self.refresh_at
    }

    fn stage(&self, now: Moment) -> Stage {
        if !now.reached(self.refresh_at) {
            Stage::Fresh
        } else if now.reached(self.expires_at) {
            Stage::Expired
        } else if now.reached(self.due_at) {
            Stage::Margin {
                left: now.until(self.expires_at),
            }
        } else {
            Stage::RefreshWindow
        }
    }
}

enum Stage {
    Fresh,
    RefreshWindow,
    Margin { left: Duration },
    Expired,
}

/// The inputs of a decision.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inputs {
    pub(super) token: TokenLifetime,
    /// The API rejected the token, and the token request caused by that is in flight.
    pub(super) suspect: bool,
    /// When the token request in flight started.
    pub(super) in_flight_since: Option<Moment>,
    /// No token request starts before this.
    pub(super) not_before: Option<Moment>,
    /// The last token request failed.
    pub(super) failed: bool,
}

impl Inputs {
    /// Returns the moment before which [`classify`] returns [`Verdict::Fresh`] for every request,
    /// whatever the other inputs are. Nearly all requests then cost one comparison. May be early,
    /// never late.
    pub(super) fn fresh_until(&self) -> Moment {
        match &self.token {
            TokenLifetime::Until(schedule) if !self.suspect => schedule.refresh_at,
            TokenLifetime::Unlimited if !self.suspect => Moment::NEVER,
            _ => Moment::default(),
        }
    }
}

/// The lifetime of the cached token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum TokenLifetime {
    #[default]
    NoToken,
    /// The token has no known expiry.
    Unlimited,
    Until(Schedule),
}

impl TokenLifetime {
    /// How much of the token's lifetime is left.
    fn left(&self, now: Moment) -> Duration {
        match self {
            Self::NoToken => Duration::ZERO,
            Self::Unlimited => Duration::MAX,
            Self::Until(schedule) => now.until(schedule.expires_at),
        }
    }
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Use the cached token.
    Fresh,
    /// Use the cached token, and start a token request in the background.
    RefreshAhead,
    /// Wait for the token request in flight, or start one. With a fallback: wait at most that long,
    /// then use the cached token.
    Due { fallback: Option<Duration> },
    /// No token request may start yet. With a fallback: use the cached token. Without: return the
    /// last error.
    BackingOff { fallback: bool, until: Moment },
}

/// Decides what to do with a request. `can_resend`: the request can be sent again if the API rejects
/// its token, so it does not wait while the cached token is suspect.
#[inline]
pub(super) fn classify(state: &Inputs, now: Moment, can_resend: bool) -> Verdict {
    let stage = match &state.token {
        TokenLifetime::Until(schedule) => schedule.stage(now),
        TokenLifetime::Unlimited => Stage::Fresh,
        TokenLifetime::NoToken => Stage::Expired,
    };
    let blocked = state.not_before.filter(|until| !now.reached(*until));
    match stage {
        Stage::Fresh | Stage::RefreshWindow if state.suspect && !can_resend => {
            // Only briefly: most suspect tokens are valid.
            match state.in_flight_since {
                Some(since) => {
                    let left = state.token.left(now);
                    waiting(now, since, MAX_WAIT_WITH_FALLBACK.min(left / 2))
                }
                None => Verdict::Fresh,
            }
        }
        Stage::Fresh => Verdict::Fresh,
        Stage::RefreshWindow if state.in_flight_since.is_some() || blocked.is_some() => {
            Verdict::Fresh
        }
        Stage::RefreshWindow => Verdict::RefreshAhead,
        Stage::Margin { left } => match (state.in_flight_since, blocked) {
            (Some(since), _) => waiting(now, since, MAX_WAIT_WITH_FALLBACK.min(left / 2)),
            (None, Some(until)) => Verdict::BackingOff {
                fallback: true,
                until,
            },
            (None, None) => Verdict::Due {
                fallback: Some(MAX_WAIT_WITH_FALLBACK.min(left / 2)),
            },
        },
        Stage::Expired => match (state.in_flight_since, blocked) {
            (None, Some(until)) if state.failed => Verdict::BackingOff {
                fallback: false,
                until,
            },
            // In flight, or about to start: callers that wait for the spacing share one token request.
            _ => Verdict::Due { fallback: None },
        },
    }
}

/// With a valid token, the wait counts from the start of the token request, not from the caller's
/// arrival: an unresponsive server costs all callers one wait together, not one each.
fn waiting(now: Moment, since: Moment, max_wait: Duration) -> Verdict {
    match max_wait.saturating_sub(now.since(since)) {
        Duration::ZERO => Verdict::Fresh,
        left => Verdict::Due {
            fallback: Some(left),
        },
    }
}

#[cfg(test)]
mod tests;
