//! What is known from outside the crate, and the bounds that follow from it.
//!
//! The ledger sees token requests and their answers below the crate's token source, and requests
//! to the API below its layer; it knows which tokens were revoked, since the soak has them revoked.
//! From that, and from what the crate's documentation says about the life of a token, it judges.
//! Only what [`Ledger::will_ask`] hears is the crate's
//! own word.
//!
//! No judgement depends on how fast the machine is: each compares moments whose *order* the rules
//! give, and where a thread may have been put off between two of them, takes the one that excuses.
//! [`CLOCK`] and [`ANCHOR`] are the only tolerances.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bearer_auth::FetchReason;

/// How far the kernel's coarse clock, which the crate reads, may lag: some ticks.
const CLOCK: Duration = Duration::from_millis(50);
/// A token's life counts from just before the crate tells that it asks for it: a few lines of code,
/// between which a thread can be put off.
const ANCHOR: Duration = Duration::from_millis(250);

/// How many tokens, and failures, are remembered: a minute's at least, for requests of seconds.
const MEMORY: usize = 64;
/// How many violations are told in full.
const TOLD: usize = 10;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No request fails while there is a good token, nor while the server gives one for the asking.
    NoFailure,
    /// No request goes out with a token that is over, or with none.
    NoDeadToken,
    /// One token request at a time, none before its time.
    TokenRequests,
    /// No token comes to its end before it is renewed, as long as requests go by.
    RenewedAhead,
    /// All requests end.
    AllEnd,
    /// At rest, heap and tasks are back to their level.
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
    /// A request went by in the time in which it is renewed with nobody waiting.
    seen_ageing: bool,
}

/// A token request that failed.
struct Failed {
    ended: Instant,
    /// When the next one is due at the latest, if somebody wants a token.
    next_by: Instant,
}

/// How a token request ended.
pub(crate) enum Answer {
    Token {
        value: String,
        lifetime: Duration,
    },
    /// Another attempt may help at once, unless the server says when to come back.
    Soon {
        retry_after: Option<Duration>,
    },
    Later,
}

/// A token request, as the crate sees it.
#[derive(Clone, Copy)]
struct Asked {
    reason: FetchReason,
    attempt: u32,
    /// A token's life counts from just before.
    at: Instant,
}

/// What came of token requests since the last one that brought a token.
struct Trouble {
    /// When the last one failed, and how.
    since: Instant,
    answer: Answer,
    /// How many failed in a row, and which attempt of its own the last one was.
    flights: u32,
    attempt: u32,
}

struct State {
    tokens: VecDeque<Token>,
    failures: VecDeque<Failed>,
    /// Under way, since.
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

    /// How many there were, and the first of them.
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
    /// The crate is about to ask, and says why, and whether this is the first attempt.
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
            let what = "a token request while another was under way";
            state.violate(self.start, Bound::TokenRequests, what.to_owned());
        }
        if let Err(what) = state.judge_request(now) {
            state.violate(self.start, Bound::TokenRequests, what);
        }
        let renewal = state.trouble.is_none() && state.asked.reason == FetchReason::Expired;
        let newest = state.tokens.back();
        if renewal && newest.is_some_and(|token| token.seen_ageing && token.revoked.is_none()) {
            let what = "a token was asked for when callers had to wait for it; the one before had \
                        been used while it aged";
            state.violate(self.start, Bound::RenewedAhead, what.to_owned());
        }
        if newest_is_revoked(&state.tokens) {
            state.rejections += 1;
            state.rejected = Some(now);
        }
    }

    /// It has ended. Without one under way, this means nothing.
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
                seen_ageing: false,
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
        // A revoked token goes on serving, and is replaced when its rejection may cause that.
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

    /// The tokens that are good.
    pub(crate) fn good_tokens(&self) -> Vec<String> {
        let state = self.lock();
        let good = state.tokens.iter().filter(|token| token.revoked.is_none());
        good.map(|token| token.value.clone()).collect()
    }

    /// The API is about to refuse these.
    pub(crate) fn revoked(&self, tokens: &[String]) {
        let now = Instant::now();
        let mut state = self.lock();
        for token in &mut state.tokens {
            if tokens.contains(&token.value) {
                token.revoked = Some(now);
            }
        }
    }

    /// Whether a revocation now heals at once: no failure is waited out, and the spacing after
    /// earlier rejections is over.
    pub(crate) fn would_heal(&self) -> bool {
        let state = self.lock();
        let spaced = state.rejected.is_none_or(|rejected| {
            rejected.elapsed() > rejection_spacing(state.rejections) + CLOCK
        });
        state.trouble.is_none() && !state.tokens.is_empty() && spaced
    }
}

/// # Requests to the API
impl Ledger {
    /// A request goes out, with this token; `began` is before the crate has chosen it.
    pub(crate) fn sent(&self, token: Option<&str>, began: Instant) {
        let now = Instant::now();
        let mut state = self.lock();
        let asking_is_allowed = state.trouble.is_none();
        let Some(token) = token else {
            let what = "a request went out without a token".to_owned();
            return state.violate(self.start, Bound::NoDeadToken, what);
        };
        let newest = state.tokens.len().saturating_sub(1);
        let found = state.tokens.iter_mut().enumerate().rev();
        let mut found = found.filter(|(_, known)| known.value == token);
        let Some((at, token)) = found.next() else {
            let what = "a request went out with a token that nobody gave".to_owned();
            return state.violate(self.start, Bound::NoDeadToken, what);
        };
        if began > token.ends() + CLOCK {
            let late = began - token.ends();
            let what = format!("a request went out with a token that was over since {late:?}");
            return state.violate(self.start, Bound::NoDeadToken, what);
        }
        token.seen_ageing |= at == newest
            && asking_is_allowed
            && began >= token.ages_by()
            && now + ANCHOR <= token.due();
    }

    /// A request has failed. Says whether that is excused.
    pub(crate) fn failed(&self, kind: &str, began: Instant) -> bool {
        let ended = Instant::now();
        let mut state = self.lock();
        let good = |token: &Token| {
            let good_at_the_end = ended + ANCHOR <= token.ends();
            token.given <= began && good_at_the_end && token.revoked.is_none_or(|at| at > ended)
        };
        let what = if state.tokens.iter().any(good) {
            "while there was a good token"
        } else if !state.failures.iter().any(|failure| {
            let meanwhile = began <= failure.ended && failure.ended <= ended;
            let before = failure.ended <= began
                && began <= failure.next_by
                && !state.is_given_between(failure.ended, began);
            meanwhile || before
        }) {
            "although no token request had failed, or the next was due"
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
        if self.violations.len() < TOLD {
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
            // Ahead of the end of the one there is, but not before it ages; at once, if it is
            // refused.
            let Some(token) = self.tokens.back() else {
                return Ok(());
            };
            let early = token.ages_from().saturating_duration_since(now + ANCHOR);
            return if attempt > 1 {
                Err(format!("attempt {attempt}, although none had failed"))
            } else if early.is_zero() || token.revoked.is_some() {
                Ok(())
            } else {
                Err(format!("a token request {early:?} before the token ages"))
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
                None => return Err("another attempt, although none could help".to_owned()),
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

    /// It is not renewed before a quarter of its life is left …
    fn ages_from(&self) -> Instant {
        self.ends() - self.lifetime / 4
    }

    /// … but before more than a quarter of that is over.
    fn ages_by(&self) -> Instant {
        self.ends() - self.lifetime * 3 / 16 + CLOCK
    }

    /// In the last tenth, callers wait.
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

/// Attempts of one flight …
const ATTEMPTS: u32 = 3;
/// … of which none waits longer than this for the server.
const LONGEST_WAIT_IN_FLIGHT: Duration = Duration::from_secs(3);

/// 200 ms, then 400 ms.
fn between_attempts(attempts: u32) -> Duration {
    Duration::from_millis(100) * 2u32.pow(attempts)
}

/// After so many failed flights: 1 s, 2 s, 4 s … 60 s.
fn longest_pause(flights: u32) -> Duration {
    Duration::from_secs(1 << flights.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

/// Half of it is at random, but never less than a second.
fn shortest_pause(flights: u32) -> Duration {
    (longest_pause(flights) / 2).max(Duration::from_secs(1))
}

/// Between two token requests that refusals have caused: 1 s, 2 s, 4 s … 60 s.
fn rejection_spacing(rejections: u32) -> Duration {
    longest_pause(rejections)
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::NoFailure => "no failure with a token to be had",
            Bound::NoDeadToken => "no request with a dead token",
            Bound::TokenRequests => "token requests within the backoff's bound",
            Bound::RenewedAhead => "renewal ahead of the end",
            Bound::AllEnd => "every request ends",
            Bound::BackToLevel => "heap and tasks back to their level",
        })
    }
}
