//! Random sequences of calls, source replies and clock steps on a real cache, checked against a
//! reference model ([`Rules`]): a second implementation of the rules in
//! [the crate's documentation](crate#lifecycle-of-a-token). The model sees the requests to the source
//! and the results of callers. Of the cache's state it sees the last error and the flight only.
//!
//! Steps are densest where the rules change.

use proptest::{prelude::*, sample::Index};
use tokio::task::id;

mod rules;

use super::sequences::rules::{ROUNDING, Rules};
use super::*;
use crate::event::Event;

/// How the source replies to a fetch.
#[derive(Clone, Debug)]
struct Answer {
    delay: Duration,
    reply: Reply,
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    /// A new token, or the last one again.
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
    /// Both clocks and the timers advance.
    Pass(Duration),
    /// As `Pass`, to just before (`true`) or after a boundary of the cached token.
    PassTo(Boundary, bool, Duration),
    /// The wall clock alone advances.
    Suspend(Duration),
    SetBack(Duration),
    Call {
        can_resend: bool,
    },
    Try,
    Prefetch,
    /// The API rejects the cached token, or an older one.
    Reject,
    RejectOld(Index),
    Renew,
    Refresh,
    Forget,
}

#[derive(Clone, Copy, Debug)]
enum Boundary {
    RefreshWindow,
    Margin,
    Expiry,
}

/// A source that the rules observe. An assertion that fails in a task poisons the lock of the rules:
/// see [`Run::settle`].
struct Scripted(Arc<Mutex<Rules>>);

fn rules(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TokenSource for Scripted {
    async fn fetch(&self, _: TokenRequest) -> Result<TokenResponse, Error> {
        let (answer, value, requested_at, sleep) = {
            let mut rules = rules(&self.0);
            let answer = rules.answers[rules.fetches % rules.answers.len()].clone();
            rules.fetches += 1;
            let again = matches!(answer.reply, Reply::Token { again: true, .. });
            rules.tokens += u32::from(!again || rules.tokens == 0);
            let value = format!("token-{}", rules.tokens);
            let sleep = rules.clock.sleep(answer.delay);
            (answer, value, rules.moment(), sleep)
        };
        let message = format!("error {}", rules(&self.0).fetches);
        sleep.await;
        let Answer { reply, .. } = answer;
        rules(&self.0).flights.entry(id()).or_default().reply =
            Some((reply, value.clone(), requested_at));
        match reply {
            Reply::Token { lifetime, .. } => {
                let response = TokenResponse::builder(value);
                match lifetime {
                    Some(lifetime) => response.expires_in(lifetime).build(),
                    None => response.build(),
                }
            }
            Reply::Error { retry, wait } => Err(Error::build(ErrorKind::Status, retry, message)
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
            jitter,
            answers,
            ..Rules::default()
        }));
        let observer = Arc::clone(&rules);
        let cache = TokenCache::builder(Scripted(Arc::clone(&rules)))
            .clock(clock.clone())
            .on_event(move |event| match event {
                // An assertion has failed: a second panic would abort the process.
                _ if std::thread::panicking() => {}
                Event::Requested {
                    reason, attempt, ..
                } => self::rules(&observer).on_requested(*reason, *attempt),
                Event::Obtained { .. } => self::rules(&observer).on_obtained(),
                Event::Failed { error, .. } => self::rules(&observer).on_failed(error),
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
            "an assertion failed in a task, see above"
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
        let must_start = self.must_start_flight(&step);
        match step {
            Step::Pass(duration) => self.pass(duration).await,
            Step::PassTo(boundary, before, distance) => {
                let left = self.rules().until(boundary);
                let pause = match before {
                    true => left.saturating_sub(distance),
                    false => left + distance,
                };
                self.pass(pause).await;
            }
            Step::Suspend(duration) => {
                let mut rules = self.rules();
                rules.now += duration;
                rules.clocks_diverged = true;
                self.clock.suspend(duration);
            }
            Step::SetBack(duration) => {
                self.rules().clocks_diverged = true;
                self.clock.set_back(duration);
            }
            Step::Call { can_resend } => {
                let (cache, rules) = (self.cache.clone(), Arc::clone(&self.rules));
                let call = self.rules().on_call();
                tokio::spawn(async move {
                    let result = match cache.acquire(can_resend) {
                        Acquire::Now(token) => Ok(token),
                        Acquire::Wait(waiting) => cache.wait(waiting, can_resend).await,
                        Acquire::Fail(error) => Err(error),
                    };
                    self::rules(&rules).on_return(call, result);
                });
            }
            Step::Try => {
                let token = self.cache.try_token();
                let rules = self.rules();
                match &token {
                    Some(token) => rules.assert_usable(token),
                    None => assert!(
                        rules.valid_token().is_none(),
                        "a valid token was not returned"
                    ),
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
                            rules.assert_usable(&new);
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
        if must_start {
            assert!(
                self.rules().starts.len() > before,
                "no token request started, although one was due"
            );
        }
    }

    async fn forget(&mut self) {
        let flight = self.cache.0.snapshot.load().flight.clone();
        let delayed = flight.is_some_and(|flight| Some(flight.id()) != self.rules().last_flight);
        self.cache.forget();
        self.seen.clear();
        {
            let mut rules = self.rules();
            (rules.current, rules.flight, rules.ignores_next_flight) = (None, None, delayed);
            rules.starts.clear();
            rules.forgets += 1;
            (
                rules.failures,
                rules.backoff_until,
                rules.no_improvement_until,
            ) = (0, None, None);
            (
                rules.rejections,
                rules.rejected_at,
                rules.rejected_flight_at,
            ) = (0, None, None);
        }
        while self.rules().ignores_next_flight {
            self.pass(secs(1)).await;
        }
    }

    /// Whether, by the documentation, this step starts a flight now.
    fn must_start_flight(&self, step: &Step) -> bool {
        let fetching = self.cache.status().fetching;
        let rules = self.rules();
        let needs_token = matches!(step, Step::Call { .. } | Step::Try | Step::Prefetch);
        let is_due = rules
            .current
            .as_ref()
            .is_none_or(|token| rules.within(token.refresh_window.saturating_sub(ROUNDING), token));
        needs_token && is_due && !fetching && !rules.clocks_diverged && rules.blocked().is_none()
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
        // No caller waits without limit.
        for _ in 0..10 {
            run.pass(secs(20)).await;
        }
        let rules = run.rules();
        assert_eq!(rules.callers, 0, "callers still wait");
        rules.starts.clone()
    })
}

/// A flight that waits for its spacing can start late (the machine was suspended) or early (a caller
/// forced it). The properties below found both.
#[test]
fn spacing_counts_from_the_actual_start_of_a_delayed_flight() {
    let expired = Answer {
        delay: Duration::ZERO,
        reply: Reply::Token {
            lifetime: Some(Duration::ZERO),
            again: false,
        },
    };
    let fails = Answer {
        delay: Duration::ZERO,
        reply: Reply::Error {
            retry: Retry::Later,
            wait: None,
        },
    };
    let call = Step::Call { can_resend: false };
    let steps = vec![
        call.clone(),
        call.clone(),
        Step::Suspend(secs(3_600)),
        Step::Pass(secs(1)),
        call.clone(),
    ];
    let starts = run(vec![expired.clone()], 0.0, steps);
    assert_eq!(starts.len(), 3);
    assert!(starts[2] >= starts[1] + secs(1), "{starts:?}");
    let steps = vec![
        call.clone(),
        Step::Try,
        Step::Pass(secs(0)),
        Step::Reject,
        call,
    ];
    assert_eq!(run(vec![expired, fails], 0.0, steps).len(), 2);
}

fn lifetimes() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(Duration::ZERO),
        1 => Just(secs(1)),
        2 => (0..20_000u64).prop_map(Duration::from_millis),
        4 => (1..40_000u64).prop_map(secs),
        1 => (1..100_000_000u64).prop_map(secs),
    ]
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let delay = prop_oneof![
        4 => Just(Duration::ZERO),
        2 => (0..3_000u64).prop_map(Duration::from_millis),
        1 => (0..40u64).prop_map(secs),
    ];
    let token = (
        prop::option::weighted(0.9, lifetimes()),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(lifetime, again)| Reply::Token { lifetime, again });
    let reply = prop_oneof![3 => token, 2 => errors()];
    let answer = (delay, reply).prop_map(|(delay, reply)| Answer { delay, reply });
    prop::collection::vec(answer, 1..8)
}

fn errors() -> impl Strategy<Value = Reply> {
    let retry = prop::sample::select(vec![Retry::Soon, Retry::Later, Retry::Never]);
    let wait = prop::option::weighted(0.4, prop_oneof![0..5u64, 0..2_000u64]);
    (retry, wait).prop_map(|(retry, wait)| Reply::Error { retry, wait })
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..2_000u64).prop_map(Duration::from_millis),
        2 => (0..100u64).prop_map(secs),
        2 => (0..10_000u64).prop_map(secs),
        1 => (0..40_000_000u64).prop_map(secs),
    ]
}

fn boundaries() -> impl Strategy<Value = Step> {
    let boundary = prop::sample::select(vec![
        Boundary::RefreshWindow,
        Boundary::Margin,
        Boundary::Expiry,
    ]);
    let distance = prop_oneof![
        1 => (0..1_000u64).prop_map(Duration::from_nanos),
        2 => (0..1_500u64).prop_map(Duration::from_millis),
        1 => (0..400u64).prop_map(secs),
    ];
    (boundary, any::<bool>(), distance)
        .prop_map(|(boundary, before, distance)| Step::PassTo(boundary, before, distance))
}

/// Clock steps weaken some rules; without them, all rules are exact.
fn steps(clocks_step: bool) -> impl Strategy<Value = Vec<Step>> {
    let clock_step = move |step: fn(Duration) -> Step| {
        let step = if clocks_step { step } else { Step::Pass };
        time().prop_map(step)
    };
    let step = prop_oneof![
        8 => time().prop_map(Step::Pass),
        8 => boundaries(),
        2 => clock_step(Step::Suspend),
        1 => clock_step(Step::SetBack),
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
    fn random_sequences_follow_the_documented_rules(
        answers in answers(),
        jitter in 0.0..=1.0f64,
        steps in steps(false),
    ) {
        run(answers, jitter, steps);
    }

    #[test]
    fn random_sequences_with_clock_steps_follow_the_documented_rules(
        answers in answers(),
        jitter in 0.0..=1.0f64,
        steps in steps(true),
    ) {
        run(answers, jitter, steps);
    }
}

proptest! {
    // Each case makes hundreds of calls.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// For any number of callers, any errors, and any rejections.
    #[test]
    fn outage_starts_at_most_seven_flights_in_any_minute(
        errors in prop::collection::vec(errors(), 1..8),
        jitter in 0.0..=1.0f64,
        calls in prop::collection::vec((1..700u64, any::<bool>()), 300..400),
    ) {
        let at_once = |reply| Answer { delay: Duration::ZERO, reply };
        let steps = calls.into_iter().flat_map(|(pause, rejected)| {
            let call = if rejected { Step::Renew } else { Step::Call { can_resend: true } };
            [call, Step::Pass(Duration::from_millis(pause))]
        });
        let starts = run(errors.into_iter().map(at_once).collect(), jitter, steps.collect());
        for &start in &starts {
            let minute = starts.iter().filter(|s| (start..start + secs(60)).contains(*s));
            prop_assert!(minute.count() <= 7, "{:?}", starts);
        }
    }

    /// An API that rejects every token, and a server that issues new ones.
    #[test]
    fn repeated_401s_start_at_most_seven_flights_in_any_minute(
        jitter in 0.0..=1.0f64,
        // Some pauses are long, but too short to reset the count of rejections.
        pauses in prop::collection::vec(
            prop_oneof![30 => 1..700u64, 1 => 60_000..299_000u64],
            300..400,
        ),
        waits: bool,
    ) {
        let reply = Reply::Token { lifetime: Some(secs(3_600)), again: false };
        let reject = if waits { Step::Renew } else { Step::Reject };
        let steps = pauses.into_iter().flat_map(|pause| {
            let call = Step::Call { can_resend: true };
            [call, reject.clone(), Step::Pass(Duration::from_millis(pause))]
        });
        let answer = Answer { delay: Duration::ZERO, reply };
        let starts = run(vec![answer], jitter, steps.collect());
        for &start in starts.iter().skip(1) {
            let minute = starts.iter().filter(|s| (start..start + secs(60)).contains(*s));
            prop_assert!(minute.count() <= 7, "{:?}", starts);
        }
    }
}
