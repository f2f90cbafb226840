//! The lifecycle of a token as a pure function of state and time: no I/O, no lock, no clock.
//!
//! ```text
//! anchor                    ageing_at           due_at      expires_at
//!   |---------- Fresh ---------|----- Ageing -----|--- Due -----|--- Due, no fallback
//!                              |   in background  |  awaited,   |  awaited
//!                              |   nobody waits   |  briefly    |
//! ```
//!
//! While a new flight may not start yet (spacing, backoff), `Ageing` reads as `Fresh`, and `Due`
//! as `BackingOff`. Invariants, each a test below: a token past `expires_at` is never `Fresh`,
//! `Ageing` or a fallback; nothing but the passing of time moves a state towards the right.

use std::time::Duration;

use crate::clock::Moment;

/// A token begins to age this share of its lifetime before its end …
const AGEING_SHARE: u32 = 4;
/// … but no longer before its end than this …
const LONGEST_AGEING: Duration = Duration::from_secs(15 * 60);
/// … or this, for lifetimes of [`LONG_LIFETIME`] and more.
const LONGEST_AGEING_OF_LONG: Duration = Duration::from_secs(60 * 60);
const LONG_LIFETIME: Duration = Duration::from_secs(4 * 60 * 60);
/// The ageing window is multiplied by a factor drawn from here to 1 for each token.
const LEAST_JITTER: f64 = 0.75;

/// The safety margin before a token's end.
pub(super) const SAFETY_MARGIN: Duration = Duration::from_secs(10);
/// The safety margin is at most this share of the lifetime.
const MARGIN_SHARE: u32 = 10;

/// Flights that nobody forced start at least this far apart.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// How long a caller with a valid token in hand waits for a newer one.
pub(super) const LONGEST_WAIT_WITH_FALLBACK: Duration = Duration::from_secs(1);

/// When a token ages, is due and is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    ageing_at: Moment,
    due_at: Moment,
    expires_at: Moment,
    /// How long before `expires_at` the two others lie.
    ageing: Duration,
    margin: Duration,
}

impl Schedule {
    /// For a token asked for at `anchor` that lives for `lifetime` from then. `jitter` is in [0, 1].
    pub(super) fn new(anchor: Moment, lifetime: Duration, margin: Duration, jitter: f64) -> Self {
        let longest = longest_ageing(lifetime);
        let factor = LEAST_JITTER + (1.0 - LEAST_JITTER) * jitter.clamp(0.0, 1.0);
        let margin = margin.min(lifetime / MARGIN_SHARE);
        let ageing = (lifetime / AGEING_SHARE).min(longest).mul_f64(factor);
        Self::ending(anchor.after(lifetime), ageing.max(margin), margin)
    }

    /// The server handed out the same token again, with the rest of its life: the end is taken
    /// from the newer answer, the margins stay those of the first.
    pub(super) fn renewed(self, expires_at: Moment) -> Self {
        Self::ending(expires_at, self.ageing, self.margin)
    }

    fn ending(expires_at: Moment, ageing: Duration, margin: Duration) -> Self {
        Self {
            ageing_at: expires_at.before(ageing),
            due_at: expires_at.before(margin),
            expires_at,
            ageing,
            margin,
        }
    }

    pub(super) fn expires_at(&self) -> Moment {
        self.expires_at
    }

    pub(super) fn ageing_at(&self) -> Moment {
        self.ageing_at
    }

    fn stage(&self, now: Moment) -> Stage {
        if !now.reached(self.ageing_at) {
            Stage::Fresh
        } else if now.reached(self.expires_at) {
            Stage::Over
        } else if now.reached(self.due_at) {
            Stage::Margin {
                left: now.until(self.expires_at),
            }
        } else {
            Stage::Ageing
        }
    }
}

/// The longest that a token of this lifetime may be ageing, as jitter has it.
#[cfg(feature = "redis")]
pub(crate) fn ageing_at_most(lifetime: Duration) -> Duration {
    (lifetime / AGEING_SHARE).min(longest_ageing(lifetime))
}

fn longest_ageing(lifetime: Duration) -> Duration {
    if lifetime >= LONG_LIFETIME {
        LONGEST_AGEING_OF_LONG
    } else {
        LONGEST_AGEING
    }
}

enum Stage {
    Fresh,
    Ageing,
    Margin { left: Duration },
    Over,
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) token: Held,
    /// The API refused the token, and the flight that was started for that is under way.
    pub(super) resting: bool,
    /// When the flight that is under way started.
    pub(super) flying_since: Option<Moment>,
    /// No flight starts before this.
    pub(super) not_before: Option<Moment>,
    /// The last flight failed.
    pub(super) failed: bool,
}

impl State {
    /// Until this moment [`classify`] says [`Verdict::Fresh`] of every request, whatever else: the
    /// way of nearly all requests is one comparison. May be early, never late.
    pub(super) fn fresh_until(&self) -> Moment {
        match &self.token {
            Held::Until(schedule) if !self.resting => schedule.ageing_at,
            Held::Lasting if !self.resting => Moment::NEVER,
            _ => Moment::default(),
        }
    }
}

/// The token, as far as the lifecycle goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// A token that never ends by itself.
    Lasting,
    Until(Schedule),
}

impl Held {
    /// How much of its life is left.
    fn left(&self, now: Moment) -> Duration {
        match self {
            Self::Nothing => Duration::ZERO,
            Self::Lasting => Duration::MAX,
            Self::Until(schedule) => now.until(schedule.expires_at),
        }
    }
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on with the token.
    Fresh,
    /// Go on with the token, and start a flight in the background.
    Ageing,
    /// Wait for a flight, starting one if none is under way. With a fallback: at most that long,
    /// then go on with the token in hand.
    Due { fallback: Option<Duration> },
    /// No flight may start yet. With a fallback: go on with the token in hand; without: tell the
    /// caller what went wrong last.
    BackingOff { fallback: bool, until: Moment },
}

/// What to do about a request, now. `can_resend`: it can be sent again if the API refuses it, so
/// that it need not wait for a token that is only under suspicion.
#[inline]
pub(super) fn classify(state: &State, now: Moment, can_resend: bool) -> Verdict {
    let stage = match &state.token {
        Held::Until(schedule) => schedule.stage(now),
        Held::Lasting => Stage::Fresh,
        Held::Nothing => Stage::Over,
    };
    let blocked = state.not_before.filter(|until| !now.reached(*until));
    match stage {
        Stage::Fresh | Stage::Ageing if state.resting && !can_resend => {
            // Briefly: a token under suspicion is more often good than not.
            match state.flying_since {
                Some(since) => {
                    let left = state.token.left(now);
                    waiting(now, since, LONGEST_WAIT_WITH_FALLBACK.min(left / 2))
                }
                None => Verdict::Fresh,
            }
        }
        Stage::Fresh => Verdict::Fresh,
        Stage::Ageing if state.flying_since.is_some() || blocked.is_some() => Verdict::Fresh,
        Stage::Ageing => Verdict::Ageing,
        Stage::Margin { left } => match (state.flying_since, blocked) {
            (Some(since), _) => waiting(now, since, LONGEST_WAIT_WITH_FALLBACK.min(left / 2)),
            (None, Some(until)) => Verdict::BackingOff {
                fallback: true,
                until,
            },
            (None, None) => Verdict::Due {
                fallback: Some(LONGEST_WAIT_WITH_FALLBACK.min(left / 2)),
            },
        },
        Stage::Over => match (state.flying_since, blocked) {
            (None, Some(until)) if state.failed => Verdict::BackingOff {
                fallback: false,
                until,
            },
            // Under way, or about to start; when it is only the spacing that keeps it on the
            // ground, callers gather and share it.
            _ => Verdict::Due { fallback: None },
        },
    }
}

/// Waiting with a token in hand counts from when the flight started, not from when each caller
/// came: a server that is silent costs its callers one wait, not one each.
fn waiting(now: Moment, since: Moment, longest: Duration) -> Verdict {
    match longest.saturating_sub(now.since(since)) {
        Duration::ZERO => Verdict::Fresh,
        left => Verdict::Due {
            fallback: Some(left),
        },
    }
}

#[cfg(test)]
mod tests;
