//! What is known from outside the crate, and the bounds that follow from it.
//!
//! The ledger sees token requests and their answers below the crate's token source, and API requests
//! below its layer. The soak reports which tokens it revokes. From these facts, and from the documented
//! life of a token, it judges. Only [`Ledger::will_ask`] relies on the crate's own report.
//!
//! No judgement depends on the speed of the machine: each compares moments whose *order* the rules give.
//! Where a thread may have been delayed between two moments, the ledger uses the one that excuses. The
//! only tolerances are [`CLOCK`] and [`ANCHOR`].

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bearer_auth::FetchReason;

/// How far the kernel's coarse clock, which the crate reads, may lag: some ticks.
const CLOCK: Duration = Duration::from_millis(50);
/// A token's life counts from just before the crate reports its token request. A thread can be delayed
/// between the two.
const ANCHOR: Duration = Duration::from_millis(250);

/// How many tokens and failures are kept: those of a minute at least, while requests take seconds.
const MEMORY: usize = 64;
/// How many violations are reported in full.
const REPORTED: usize = 10;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No request fails while there is a valid token, or while the server would give one.
    NoFailure,
    /// No request goes out with an expired token, or without one.
    NoExpiredToken,
    /// One token request at a time, and none before its time.
    TokenRequests,
    /// No token expires before it is refreshed, as long as requests use it.
    RefreshedAhead,
    /// All requests end.
    AllEnd,
    /// At rest, heap and tasks are back at their level.
    BackToLevel,
}

pub(crate) struct Violation {
    pub(crate) bound: Bound,
    /// Since the start.
    pub(crate) when: Duration,
    pub(crate) what: String,
}

struct Token {
    value: String,
    asked: Instant,
    given: Instant,
    lifetime: Duration,
    revoked: Option<Instant>,
    /// A request used the token in its refresh window.
    used_in_refresh_window: bool,
}

/// A token request that failed.
struct Failed {
    ended: Instant,
    /// The latest time of the next one, if a caller needs a token.
    next_by: Instant,
}

/// How a token request ended.
pub(crate) enum Answer {
    Token {
        value: String,
        lifetime: Duration,
    },
    /// A retry may help at once, unless the server sends `Retry-After`.
    Soon {
        retry_after: Option<Duration>,
    },
    Later,
}

/// A token request, as the crate reported it.
#[derive(Clone, Copy)]
struct Asked {
    reason: FetchReason,
    attempt: u32,
    /// A token's life counts from just before this moment.
    at: Instant,
}

/// The failed token requests since the last one that brought a token.
struct Trouble {
    /// When the last one failed, and how.
    since: Instant,
    answer: Answer,
    /// How many flights failed in a row, and which attempt of its flight the last one was.
    flights: u32,
    attempt: u32,
}

struct State {
    tokens: VecDeque<Token>,
    failures: VecDeque<Failed>,
    /// The start of the token request in flight.
    asking: Option<Instant>,
    asked: Asked,
    trouble: Option<Trouble>,
    /// Token requests that a revoked token may have caused, and the start of the last one.
    rejections: u32,
    rejected: Option<Instant>,
    token_requests: u64,
    violations: Vec<Violation>,
    violated: u64,
}

pub(crate) struct Ledger {
    start: Instant,
    state: Mutex<State>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            state: Mutex::new(State {
                tokens: VecDeque::with_capacity(MEMORY),
                failures: VecDeque::with_capacity(MEMORY),
                asking: None,
                asked: Asked {
                    reason: FetchReason::First,
                    attempt: 1,
                    at: start,
                },
                trouble: None,
                rejections: 0,
                rejected: None,
                token_requests: 0,
                violations: Vec::new(),
                violated: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn since_start(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn token_requests(&self) -> u64 {
        self.lock().token_requests
    }

    pub(crate) fn violate(&self, bound: Bound, what: String) {
        self.lock().violate(self.start, bound, what);
    }

    /// The number of violations, and the first of them.
    pub(crate) fn take_violations(&self) -> (u64, Vec<Violation>) {
        let mut state = self.lock();
        (state.violated, std::mem::take(&mut state.violations))
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.lock().violated > 0
    }
}

/// # Token requests
impl Ledger {
    /// The crate is about to send a token request, for this reason.
    pub(crate) fn will_ask(&self, reason: FetchReason, attempt: u32) {
        let at = Instant::now();
        self.lock().asked = Asked {
            reason,
            attempt,
            at,
        };
    }

    /// A token request starts.
    pub(crate) fn asks(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        state.token_requests += 1;
        if state.asking.replace(now).is_some() {
            let what = "a token request while another was in flight";
            state.violate(self.start, Bound::TokenRequests, what.to_owned());
        }
        if let Err(what) = state.judge_request(now) {
            state.violate(self.start, Bound::TokenRequests, what);
        }
        let refresh = state.trouble.is_none() && state.asked.reason == FetchReason::Expired;
        let newest = state.tokens.back();
        let missed = |token: &Token| token.used_in_refresh_window && token.revoked.is_none();
        if refresh && newest.is_some_and(missed) {
            let what = "a token was requested when callers had to wait for it, although requests had \
                        used the last one in its refresh window";
            state.violate(self.start, Bound::RefreshedAhead, what.to_owned());
        }
        if newest_is_revoked(&state.tokens) {
            state.rejections += 1;
            state.rejected = Some(now);
        }
    }

    /// The token request has ended. Does nothing if none is in flight.
    pub(crate) fn answered(&self, answer: Answer) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.asking.take().is_none() {
            return;
        }
        if let Answer::Token { value, lifetime } = answer {
            let token = Token {
                value,
                asked: state.asked.at,
                given: now,
                lifetime,
                revoked: None,
                used_in_refresh_window: false,
            };
            push(&mut state.tokens, token);
            state.trouble = None;
            return;
        }
        let attempt = state.asked.attempt;
        let flights = match &state.trouble {
            Some(trouble) if attempt > 1 => trouble.flights,
            Some(trouble) => trouble.flights + 1,
            None => 1,
        };
        let mut pause = longest_pause(flights);
        if let Answer::Soon {
            retry_after: Some(wait),
        } = &answer
        {
            pause = pause.max(*wait);
        }
        // A revoked token keeps serving until the spacing after rejections allows to replace it.
        if newest_is_revoked(&state.tokens) {
            pause = pause.max(rejection_spacing(state.rejections));
        }
        let failed = Failed {
            ended: now,
            next_by: now + pause + ANCHOR,
        };
        push(&mut state.failures, failed);
        state.trouble = Some(Trouble {
            since: now,
            answer,
            flights,
            attempt,
        });
    }

    /// The tokens that were not revoked.
    pub(crate) fn good_tokens(&self) -> Vec<String> {
        let state = self.lock();
        let good = state.tokens.iter().filter(|token| token.revoked.is_none());
        good.map(|token| token.value.clone()).collect()
    }

    /// The API is about to reject these.
    pub(crate) fn revoked(&self, tokens: &[String]) {
        let now = Instant::now();
        let mut state = self.lock();
        for token in &mut state.tokens {
            if tokens.contains(&token.value) {
                token.revoked = Some(now);
            }
        }
    }

    /// Whether the crate would replace a revoked token at once: there is no backoff, and the spacing
    /// after earlier rejections has passed.
    pub(crate) fn would_recover_at_once(&self) -> bool {
        let state = self.lock();
        let spaced = state.rejected.is_none_or(|rejected| {
            rejected.elapsed() > rejection_spacing(state.rejections) + CLOCK
        });
        state.trouble.is_none() && !state.tokens.is_empty() && spaced
    }
}

/// # Requests to the API
impl Ledger {
    /// A request goes out with this token. `began` is before the crate chose it.
    pub(crate) fn sent(&self, token: Option<&str>, began: Instant) {
        let now = Instant::now();
        let mut state = self.lock();
        let asking_is_allowed = state.trouble.is_none();
        let Some(token) = token else {
            let what = "a request went out without a token".to_owned();
            return state.violate(self.start, Bound::NoExpiredToken, what);
        };
        let newest = state.tokens.len().saturating_sub(1);
        let found = state.tokens.iter_mut().enumerate().rev();
        let mut found = found.filter(|(_, known)| known.value == token);
        let Some((at, token)) = found.next() else {
            let what = "a request went out with an unknown token".to_owned();
            return state.violate(self.start, Bound::NoExpiredToken, what);
        };
        if began > token.ends() + CLOCK {
            let late = began - token.ends();
            let what = format!("a request went out with a token that had expired {late:?} ago");
            return state.violate(self.start, Bound::NoExpiredToken, what);
        }
        token.used_in_refresh_window |= at == newest
            && asking_is_allowed
            && began >= token.latest_window_start()
            && now + ANCHOR <= token.due();
    }

    /// A request has failed. Returns whether the bounds excuse that.
    pub(crate) fn failed(&self, kind: &str, began: Instant) -> bool {
        let ended = Instant::now();
        let mut state = self.lock();
        let good = |token: &Token| {
            let good_at_the_end = ended + ANCHOR <= token.ends();
            token.given <= began && good_at_the_end && token.revoked.is_none_or(|at| at > ended)
        };
        let what = if state.tokens.iter().any(good) {
            "while there was a valid token"
        } else if !state.failures.iter().any(|failure| {
            let meanwhile = began <= failure.ended && failure.ended <= ended;
            let before = failure.ended <= began
                && began <= failure.next_by
                && !state.is_given_between(failure.ended, began);
            meanwhile || before
        }) {
            "although no token request had failed, or the backoff had ended"
        } else {
            return true;
        };
        let what = format!("a request failed ({kind}) {what}");
        state.violate(self.start, Bound::NoFailure, what);
        false
    }
}

impl State {
    fn violate(&mut self, start: Instant, bound: Bound, what: String) {
        self.violated += 1;
        if self.violations.len() < REPORTED {
            self.violations.push(Violation {
                bound,
                when: start.elapsed(),
                what,
            });
        }
    }

    fn is_given_between(&self, from: Instant, to: Instant) -> bool {
        let mut given = self.tokens.iter().map(|token| token.given);
        given.any(|given| from <= given && given <= to)
    }

    /// Whether a token request may start now.
    fn judge_request(&self, now: Instant) -> Result<(), String> {
        let attempt = self.asked.attempt;
        let Some(trouble) = &self.trouble else {
            // Not before the refresh window, unless the token was rejected.
            let Some(token) = self.tokens.back() else {
                return Ok(());
            };
            let early = token
                .earliest_window_start()
                .saturating_duration_since(now + ANCHOR);
            return if attempt > 1 {
                Err(format!("attempt {attempt}, although no attempt had failed"))
            } else if early.is_zero() || token.revoked.is_some() {
                Ok(())
            } else {
                Err(format!(
                    "a token request {early:?} before the refresh window"
                ))
            };
        };
        let asked = match trouble.answer {
            Answer::Soon { retry_after } => Some(retry_after.unwrap_or_default()),
            _ => None,
        };
        let due = if attempt == 1 {
            shortest_pause(trouble.flights).max(asked.unwrap_or_default())
        } else if attempt != trouble.attempt + 1 || attempt > ATTEMPTS {
            return Err(format!(
                "attempt {attempt} after attempt {}",
                trouble.attempt
            ));
        } else {
            match asked.filter(|asked| *asked <= LONGEST_WAIT_IN_FLIGHT) {
                Some(asked) => between_attempts(trouble.attempt).max(asked),
                None => return Err("a retry after an error that allows none".to_owned()),
            }
        };
        let passed = now - trouble.since;
        if passed + CLOCK >= due {
            return Ok(());
        }
        let flights = trouble.flights;
        Err(format!(
            "a token request (attempt {attempt}) {passed:.0?} after one that failed, instead of \
             {due:?}; {flights} in a row had failed"
        ))
    }
}

impl Token {
    fn ends(&self) -> Instant {
        self.asked + self.lifetime
    }

    /// The refresh window begins when a quarter of the lifetime is left, at the earliest …
    fn earliest_window_start(&self) -> Instant {
        self.ends() - self.lifetime / 4
    }

    /// … and a quarter of that later, at the latest.
    fn latest_window_start(&self) -> Instant {
        self.ends() - self.lifetime * 3 / 16 + CLOCK
    }

    /// Callers wait for a new token in the last tenth of the lifetime.
    fn due(&self) -> Instant {
        self.ends() - self.lifetime / 10
    }
}

fn newest_is_revoked(tokens: &VecDeque<Token>) -> bool {
    tokens.back().is_some_and(|token| token.revoked.is_some())
}

fn push<T>(memory: &mut VecDeque<T>, one: T) {
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(one);
}

/// The attempts of one flight …
const ATTEMPTS: u32 = 3;
/// … of which none waits longer than this for the server.
const LONGEST_WAIT_IN_FLIGHT: Duration = Duration::from_secs(3);

/// 200 ms, then 400 ms.
fn between_attempts(attempts: u32) -> Duration {
    Duration::from_millis(100) * 2u32.pow(attempts)
}

/// The longest pause after so many failed flights: 1 s, 2 s, 4 s … 60 s.
fn longest_pause(flights: u32) -> Duration {
    Duration::from_secs(1 << flights.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

/// The shortest one: half of it is random, but it is never less than a second.
fn shortest_pause(flights: u32) -> Duration {
    (longest_pause(flights) / 2).max(Duration::from_secs(1))
}

/// The spacing of token requests after rejections: 1 s, 2 s, 4 s … 60 s.
fn rejection_spacing(rejections: u32) -> Duration {
    longest_pause(rejections)
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::NoFailure => "no failure while a token is available",
            Bound::NoExpiredToken => "no request with an expired token",
            Bound::TokenRequests => "token requests within the backoff",
            Bound::RefreshedAhead => "refresh before expiry",
            Bound::AllEnd => "every request ends",
            Bound::BackToLevel => "heap and tasks back at their level",
        })
    }
}
