//! Any sequence of calls, answers and steps of the clocks, on a cache as it is. Beside it run the
//! rules of [the crate's documentation](crate#the-life-of-a-token), written down once more
//! ([`Rules`]): they see what the source is asked and what callers get, and nothing of the cache's
//! state but whether a token request is under way.
//!
//! What was broken to see it fail, and where:
//!
//! | broken | fails |
//! |---|---|
//! | `Control::not_before` without the spacing, the failure, or the vain flight | a flight before its time |
//! | `after_failure` that does not double, or without `Retry-After`, or without its five minutes | the same |
//! | `after_rejection` that does not double; a rejection while backing off; quiet after a minute | the same |
//! | `Stage::Margin` as `Fresh`, or without its fallback | a new token could have been had; an error with a token in hand |
//! | `Stage::Over` as `Margin`; `reached` on one clock | a token past its end |
//! | a dead token that displaces a good one; `renewed` that does nothing | a token that is not the current one; past its end |
//! | `waiting` from when each caller came | a caller with a token waits too long |
//! | a rejection of any token | a flight for a token that is not there |

use std::collections::HashMap;

use proptest::{prelude::*, sample::Index};
use tokio::task::{Id, id};

use super::*;
use crate::Event;

/// What the source does when it is asked.
#[derive(Clone, Debug)]
struct Answer {
    takes: Duration,
    brings: Brings,
}

#[derive(Clone, Copy, Debug)]
enum Brings {
    /// Another token, or the one before once more.
    Token {
        lifetime: Option<Duration>,
        again: bool,
    },
    Error {
        retry: Retry,
        wait: Option<u64>,
    },
}

#[derive(Clone, Debug)]
enum Step {
    /// Both clocks go on, and timers with them.
    Pass(Duration),
    /// The wall clock alone.
    Suspend(Duration),
    SetBack(Duration),
    Call {
        can_resend: bool,
    },
    Try,
    Prefetch,
    /// The API refuses the token in hand, or one of those before.
    Reject,
    RejectOld(Index),
    Renew,
    Refresh,
    Forget,
}

#[derive(Clone, Debug)]
struct Known {
    value: String,
    end: Option<Moment>,
    /// Before its end.
    ageing: Duration,
    margin: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    retry: Retry,
    wait: Duration,
    at: Duration,
}

/// What a flight has come to so far; it is known by its task.
#[derive(Default)]
struct Attempts {
    number: u32,
    /// What was brought last, and asked for when.
    brought: Option<(Brings, String, Moment)>,
    fault: Option<Fault>,
}

/// Who was called when.
#[derive(Clone, Copy)]
struct Called {
    at: Duration,
    /// There was a token, and it had not ended.
    in_hand: bool,
    /// How often all had been forgotten.
    forgets: u32,
}

struct Rules {
    clock: ManualClock,
    cache: Weak<Shared>,
    jitter: f64,
    answers: Vec<Answer>,
    fetches: usize,
    tokens: u32,
    /// Since the beginning, as much as any clock can make of it.
    now: Duration,
    /// The clocks went apart.
    apart: bool,
    starts: Vec<Duration>,
    flights: HashMap<Id, Attempts>,
    /// The flight that has begun and not ended, if what it brings counts.
    flight: Option<Id>,
    /// The number of the last that has begun.
    begun: Option<u64>,
    /// The next that begins does not count: it was about to when all was forgotten.
    forgotten: bool,
    current: Option<Known>,
    landed: Vec<(Duration, String)>,
    dead_on_arrival: Vec<(Duration, String)>,
    failures: u32,
    /// Before these, no flight that nobody forces.
    after_failure: Option<Duration>,
    after_vain: Option<Duration>,
    rejections: u32,
    rejected_at: Option<Duration>,
    rejected_flight_at: Option<Duration>,
    /// Somebody forced a flight at this time.
    refreshed_at: Option<Duration>,
    late: Duration,
    callers: usize,
    forgets: u32,
}

/// Of jitter's rounding.
const A_BIT: Duration = Duration::from_micros(1);

impl Rules {
    fn moment(&self) -> Moment {
        self.clock.moment()
    }

    fn has_reached(&self, end: Moment) -> bool {
        let now = self.moment();
        now.monotonic >= end.monotonic || now.wall >= end.wall
    }

    fn over(&self, token: &Known) -> bool {
        token.end.is_some_and(|end| self.has_reached(end))
    }

    fn within(&self, before_end: Duration, token: &Known) -> bool {
        token
            .end
            .is_some_and(|end| self.has_reached(end.before(before_end)))
    }

    fn in_hand(&self) -> Option<&Known> {
        self.current.as_ref().filter(|token| !self.over(token))
    }

    /// Until when the spacing or a pause lasts, if one does.
    fn blocked(&self, late: Duration) -> Option<Duration> {
        let spacing = self.starts.last().map(|start| *start + secs(1) + late);
        let all = [spacing, self.after_failure, self.after_vain];
        let last = all.into_iter().flatten().max();
        last.filter(|until| self.now < *until)
    }

    fn flight_failed(&mut self, Fault { retry, wait, at }: Fault) {
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

    fn asked(&mut self, reason: FetchReason, attempt: u32) {
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
        let waited = self.blocked(Duration::ZERO).is_some();
        match reason {
            FetchReason::Manual => assert!(refreshed),
            FetchReason::Rejected => self.rejection_flight(),
            // It waited for its time, and somebody was in a hurry.
            _ if waited && refreshed => {}
            _ if waited && rejected => self.rejection_flight(),
            _ => {
                assert!(
                    self.blocked(Duration::ZERO)
                        .is_none_or(|until| until <= self.now + A_BIT),
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
        let hurried = waited && reason != FetchReason::Manual;
        // To the cache it started when it was to, before somebody was in a hurry.
        self.late = if hurried { secs(1) } else { Duration::ZERO };
        self.starts.push(self.now);
    }

    fn is_wanted(&self, reason: FetchReason) {
        match (&self.current, reason) {
            (None, reason) => assert_eq!(reason, FetchReason::First),
            (Some(token), FetchReason::Ageing) => {
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
    fn rejection_flight(&mut self) {
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

    fn failed(&mut self, error: &Error) {
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

    fn shown(&self) -> Arc<Snapshot> {
        self.cache
            .upgrade()
            .expect("the cache")
            .snapshot
            .load_full()
    }

    fn obtained(&mut self) {
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
    fn in_vain(&mut self, token: &Known) {
        let now = self.moment();
        let rest = token.end.map_or(Duration::ZERO, |end| {
            let monotonic = end.monotonic.saturating_sub(now.monotonic);
            Duration::from_nanos(monotonic.min(end.wall.saturating_sub(now.wall)))
        });
        self.after_vain = Some(self.now + (rest / 4).max(secs(1)));
    }

    fn known(&self, value: String, asked_at: Moment, lifetime: Option<Duration>) -> Known {
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

    fn called(&mut self) -> Called {
        self.callers += 1;
        Called {
            at: self.now,
            in_hand: self.in_hand().is_some(),
            forgets: self.forgets,
        }
    }

    /// A caller goes on with `token`.
    fn goes(&self, token: &AccessToken) {
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

    fn returned(&mut self, called: Called, result: Result<AccessToken, Error>) {
        self.callers -= 1;
        match result {
            Ok(token) => self.goes(&token),
            Err(error) => assert!(self.in_hand().is_none(), "{error} with a token in hand"),
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

/// A source that the rules look on at. What fails in a task, fails with the rules locked: see
/// [`Run::settle`].
struct Scripted(Arc<Mutex<Rules>>);

fn rules(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TokenSource for Scripted {
    async fn fetch(&self, _: TokenRequest) -> Result<TokenResponse, Error> {
        let (answer, value, asked_at, sleep) = {
            let mut rules = rules(&self.0);
            let answer = rules.answers[rules.fetches % rules.answers.len()].clone();
            rules.fetches += 1;
            let again = matches!(answer.brings, Brings::Token { again: true, .. });
            rules.tokens += u32::from(!again || rules.tokens == 0);
            let value = format!("token-{}", rules.tokens);
            let sleep = rules.clock.sleep(answer.takes);
            (answer, value, rules.moment(), sleep)
        };
        let message = format!("error {}", rules(&self.0).fetches);
        sleep.await;
        let Answer { brings, .. } = answer;
        rules(&self.0).flights.entry(id()).or_default().brought =
            Some((brings, value.clone(), asked_at));
        match brings {
            Brings::Token { lifetime, .. } => {
                let response = TokenResponse::builder(value);
                match lifetime {
                    Some(lifetime) => response.expires_in(lifetime).build(),
                    None => response.build(),
                }
            }
            Brings::Error { retry, wait } => Err(Error::build(ErrorKind::Status, retry, message)
                .server_wait(wait.map(secs))
                .done()),
        }
    }
}

struct Run {
    cache: TokenCache,
    rules: Arc<Mutex<Rules>>,
    clock: ManualClock,
    seen: Vec<AccessToken>,
}

impl Run {
    fn new(answers: Vec<Answer>, jitter: f64) -> Self {
        JITTER.set(Some(jitter));
        let clock = ManualClock::new();
        let rules = Arc::new(Mutex::new(Rules {
            clock: clock.clone(),
            cache: Weak::new(),
            jitter,
            answers,
            fetches: 0,
            tokens: 0,
            now: Duration::ZERO,
            apart: false,
            starts: Vec::new(),
            flights: HashMap::new(),
            flight: None,
            begun: None,
            forgotten: false,
            current: None,
            landed: Vec::new(),
            dead_on_arrival: Vec::new(),
            failures: 0,
            after_failure: None,
            after_vain: None,
            rejections: 0,
            rejected_at: None,
            rejected_flight_at: None,
            refreshed_at: None,
            late: Duration::ZERO,
            callers: 0,
            forgets: 0,
        }));
        let told = Arc::clone(&rules);
        let cache = TokenCache::builder(Scripted(Arc::clone(&rules)))
            .clock(clock.clone())
            .on_event(move |event| match event {
                Event::Asked {
                    reason, attempt, ..
                } => self::rules(&told).asked(*reason, *attempt),
                Event::Obtained { .. } => self::rules(&told).obtained(),
                Event::Failed { error, .. } => self::rules(&told).failed(error),
                _ => {}
            })
            .build();
        self::rules(&rules).cache = Arc::downgrade(&cache.0);
        Self {
            cache,
            rules,
            clock,
            seen: Vec::new(),
        }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        rules(&self.rules)
    }

    async fn settle(&mut self) {
        self.clock.settle().await;
        assert!(
            !self.rules.is_poisoned(),
            "a rule was broken in a task, see above"
        );
        if let Some(token) = self.cache.present()
            && !self.seen.iter().any(|seen| seen.same_value(&token))
        {
            self.seen.push(token);
        }
    }

    async fn pass(&mut self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() {
            let step = self.clock.next_wakeup().map_or(left, |wake| wake.min(left));
            self.rules().now += step;
            self.clock.advance(step);
            left -= step;
            self.settle().await;
        }
    }

    async fn step(&mut self, step: Step) {
        let before = self.rules().starts.len();
        let wanted = self.wants_flight(&step);
        match step {
            Step::Pass(duration) => self.pass(duration).await,
            Step::Suspend(duration) => {
                let mut rules = self.rules();
                rules.now += duration;
                rules.apart = true;
                self.clock.suspend(duration);
            }
            Step::SetBack(duration) => {
                self.rules().apart = true;
                self.clock.set_back(duration);
            }
            Step::Call { can_resend } => {
                let (cache, rules) = (self.cache.clone(), Arc::clone(&self.rules));
                let called = self.rules().called();
                tokio::spawn(async move {
                    let result = match cache.acquire(can_resend) {
                        Acquire::Now(token) => Ok(token),
                        Acquire::Wait(waiting) => cache.wait(waiting, can_resend).await,
                        Acquire::Fail(error) => Err(error),
                    };
                    self::rules(&rules).returned(called, result);
                });
            }
            Step::Try => {
                let token = self.cache.try_token();
                let rules = self.rules();
                match &token {
                    Some(token) => rules.goes(token),
                    None => assert!(rules.in_hand().is_none(), "no token, with one in hand"),
                }
            }
            Step::Prefetch => self.cache.prefetch(),
            Step::Reject => {
                if let Some(token) = self.rejected() {
                    self.cache.reject(&token);
                }
            }
            Step::RejectOld(which) => {
                let current = self.cache.present();
                let old: Vec<_> = self
                    .seen
                    .iter()
                    .filter(|token| current.as_ref().is_none_or(|c| !c.same_value(token)))
                    .collect();
                if !old.is_empty() {
                    self.cache.reject(old[which.index(old.len())]);
                }
            }
            Step::Renew => {
                if let Some(token) = self.rejected() {
                    let (cache, rules) = (self.cache.clone(), Arc::clone(&self.rules));
                    self.rules().callers += 1;
                    tokio::spawn(async move {
                        let new = cache.renew(&token).await;
                        let mut rules = self::rules(&rules);
                        rules.callers -= 1;
                        if let Some(new) = new {
                            assert!(!new.same_value(&token));
                            rules.goes(&new);
                        }
                    });
                }
            }
            Step::Refresh => {
                let (cache, rules) = (self.cache.clone(), Arc::clone(&self.rules));
                let now = self.rules().now;
                self.rules().callers += 1;
                self.rules().refreshed_at = Some(now);
                tokio::spawn(async move {
                    let new = cache.refresh().await;
                    let mut rules = self::rules(&rules);
                    rules.callers -= 1;
                    if let Ok(new) = new {
                        let landed = (rules.now, new.expose_secret().to_owned());
                        assert!(rules.landed.contains(&landed));
                    }
                });
            }
            Step::Forget => self.forget().await,
        }
        self.settle().await;
        if wanted {
            assert!(
                self.rules().starts.len() > before,
                "a new token could be had"
            );
        }
    }

    async fn forget(&mut self) {
        let flight = self.cache.0.snapshot.load().flight.clone();
        let waits = flight.is_some_and(|flight| Some(flight.id()) != self.rules().begun);
        self.cache.forget();
        self.seen.clear();
        {
            let mut rules = self.rules();
            (rules.current, rules.flight, rules.forgotten) = (None, None, waits);
            rules.starts.clear();
            rules.forgets += 1;
            (rules.failures, rules.after_failure, rules.after_vain) = (0, None, None);
            (
                rules.rejections,
                rules.rejected_at,
                rules.rejected_flight_at,
            ) = (0, None, None);
        }
        while self.rules().forgotten {
            self.pass(secs(1)).await;
        }
    }

    /// The documentation says that this step starts a flight, now.
    fn wants_flight(&self, step: &Step) -> bool {
        let fetching = self.cache.status().fetching;
        let rules = self.rules();
        let asks = matches!(step, Step::Call { .. } | Step::Try | Step::Prefetch);
        let ages = rules
            .current
            .as_ref()
            .is_none_or(|token| rules.within(token.ageing.saturating_sub(A_BIT), token));
        asks && ages && !fetching && !rules.apart && rules.blocked(rules.late).is_none()
    }

    fn rejected(&self) -> Option<AccessToken> {
        let token = self.cache.present()?;
        let mut rules = self.rules();
        let quiet = rules
            .rejected_at
            .is_some_and(|last| rules.now >= last + secs(300));
        if quiet {
            rules.rejections = 0;
        }
        rules.rejected_at = Some(rules.now);
        Some(token)
    }
}

fn run(answers: Vec<Answer>, jitter: f64, steps: Vec<Step>) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(answers, jitter);
        for step in steps {
            run.step(step).await;
        }
        // Nobody waits for ever.
        for _ in 0..10 {
            run.pass(secs(20)).await;
        }
        let rules = run.rules();
        assert_eq!(rules.callers, 0, "they still wait");
        rules.starts.clone()
    })
}

fn lives() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(Duration::ZERO),
        1 => Just(secs(1)),
        2 => (0..20_000u64).prop_map(Duration::from_millis),
        4 => (1..40_000u64).prop_map(secs),
        1 => (1..100_000_000u64).prop_map(secs),
    ]
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let takes = prop_oneof![
        4 => Just(Duration::ZERO),
        2 => (0..3_000u64).prop_map(Duration::from_millis),
        1 => (0..40u64).prop_map(secs),
    ];
    let token = (
        prop::option::weighted(0.9, lives()),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(lifetime, again)| Brings::Token { lifetime, again });
    let answer = prop_oneof![3 => token, 2 => errors()];
    let answer = (takes, answer).prop_map(|(takes, brings)| Answer { takes, brings });
    prop::collection::vec(answer, 1..8)
}

fn errors() -> impl Strategy<Value = Brings> {
    let retry = prop::sample::select(vec![Retry::Soon, Retry::Later, Retry::Never]);
    let wait = prop::option::weighted(0.4, prop_oneof![0..5u64, 0..2_000u64]);
    (retry, wait).prop_map(|(retry, wait)| Brings::Error { retry, wait })
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..2_000u64).prop_map(Duration::from_millis),
        2 => (0..100u64).prop_map(secs),
        2 => (0..10_000u64).prop_map(secs),
        1 => (0..40_000_000u64).prop_map(secs),
    ]
}

/// Clocks that step make some rules weaker: without them, all are exact.
fn steps(clocks_step: bool) -> impl Strategy<Value = Vec<Step>> {
    let apart = move |step: fn(Duration) -> Step| {
        let step = if clocks_step { step } else { Step::Pass };
        time().prop_map(step)
    };
    let step = prop_oneof![
        12 => time().prop_map(Step::Pass),
        2 => apart(Step::Suspend),
        1 => apart(Step::SetBack),
        8 => any::<bool>().prop_map(|can_resend| Step::Call { can_resend }),
        2 => Just(Step::Try),
        1 => Just(Step::Prefetch),
        3 => Just(Step::Reject),
        1 => any::<Index>().prop_map(Step::RejectOld),
        2 => Just(Step::Renew),
        1 => Just(Step::Refresh),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn whatever_happens_the_documented_rules_hold(
        answers in answers(),
        jitter in 0.0..=1.0f64,
        steps in steps(false),
    ) {
        run(answers, jitter, steps);
    }

    #[test]
    fn whatever_happens_to_the_clocks_the_documented_rules_hold(
        answers in answers(),
        jitter in 0.0..=1.0f64,
        steps in steps(true),
    ) {
        run(answers, jitter, steps);
    }

    /// However many callers, whatever the server says, and whatever is refused.
    #[test]
    fn at_most_seven_flights_start_in_any_minute_of_an_outage(
        errors in prop::collection::vec(errors(), 1..8),
        jitter in 0.0..=1.0f64,
        calls in prop::collection::vec((1..700u64, any::<bool>()), 300..400),
    ) {
        let at_once = |brings| Answer { takes: Duration::ZERO, brings };
        let steps = calls.into_iter().flat_map(|(pause, refused)| {
            let call = if refused { Step::Renew } else { Step::Call { can_resend: true } };
            [call, Step::Pass(Duration::from_millis(pause))]
        });
        let starts = run(errors.into_iter().map(at_once).collect(), jitter, steps.collect());
        for &start in &starts {
            let minute = starts.iter().filter(|s| (start..start + secs(60)).contains(*s));
            prop_assert!(minute.count() <= 7, "{:?}", starts);
        }
    }

    /// An API that refuses everything, and a server that hands out tokens all the same.
    #[test]
    fn at_most_seven_flights_start_in_any_minute_of_refusals(
        jitter in 0.0..=1.0f64,
        pauses in prop::collection::vec(1..700u64, 300..400),
        waits: bool,
    ) {
        let brings = Brings::Token { lifetime: Some(secs(3_600)), again: false };
        let refusal = if waits { Step::Renew } else { Step::Reject };
        let steps = pauses.into_iter().flat_map(|pause| {
            let call = Step::Call { can_resend: true };
            [call, refusal.clone(), Step::Pass(Duration::from_millis(pause))]
        });
        let answer = Answer { takes: Duration::ZERO, brings };
        let starts = run(vec![answer], jitter, steps.collect());
        for &start in starts.iter().skip(1) {
            let minute = starts.iter().filter(|s| (start..start + secs(60)).contains(*s));
            prop_assert!(minute.count() <= 7, "{:?}", starts);
        }
    }
}
