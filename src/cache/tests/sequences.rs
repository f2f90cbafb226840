//! Any sequence of calls, answers and steps of the clocks, on a cache as it is. Beside it run the
//! rules of [the crate's documentation](crate#lifecycle-of-a-token), written down once more
//! ([`Rules`]): they see what the source is asked and what callers get, and nothing of the cache's
//! state but whether a token request is under way.
//!
//! Steps lie densest where the rules change. What was broken to see it fail, each by itself, and
//! which rule it breaks:
//!
//! | broken | rule |
//! |---|---|
//! | the spacing, a failure, or a flight in vain does not keep the next on the ground | no flight before its time |
//! | pauses that do not double, forget `Retry-After`, or are short after what somebody has to mend; a success that keeps the failure | the same, and at most seven in a minute |
//! | `Retry-After` without its bound; callers who are not told of a failure | callers are told when the next flight may start |
//! | a fourth attempt; one after any error; one against a long `Retry-After` | attempts |
//! | rejections that do not double, are new after a minute, or come in a pause after a failure | rejections' pauses, and at most seven in a minute |
//! | any rejected token counts | nobody rejected the token in hand |
//! | the margin reads as ageing; ageing never renews | a new token could be had |
//! | ageing begins at a third | no flight that nobody wants |
//! | the margin without its fallback; waiting that counts from each caller | nobody waits for long with a token in hand |
//! | over when both clocks say so; `in_hand`, whatever the time; `renewed` that does nothing | no token past its end |
//! | a dead token displaces a good one; a failure, or nothing, takes the token; `forget` keeps it; a flight that was given up lands | it is the newest good one |

use proptest::{prelude::*, sample::Index};
use tokio::task::id;

mod rules;

use super::sequences::rules::{A_BIT, Rules};
use super::*;
use crate::event::Event;

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
    /// To a little before or after the token in hand ages, is due, or ends.
    PassTo(Boundary, bool, Duration),
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

#[derive(Clone, Copy, Debug)]
enum Boundary {
    Ageing,
    Margin,
    End,
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
            jitter,
            answers,
            ..Rules::default()
        }));
        let told = Arc::clone(&rules);
        let cache = TokenCache::builder(Scripted(Arc::clone(&rules)))
            .clock(clock.clone())
            .on_event(move |event| match event {
                // One rule is broken: a second panic would end the process.
                _ if std::thread::panicking() => {}
                Event::Requested {
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
            Step::PassTo(boundary, before, a_little) => {
                let left = self.rules().until(boundary);
                let pause = match before {
                    true => left.saturating_sub(a_little),
                    false => left + a_little,
                };
                self.pass(pause).await;
            }
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
        asks && ages && !fetching && !rules.apart && rules.blocked().is_none()
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

/// The machine slept, or somebody was in a hurry: what was found with the properties below.
#[test]
fn a_flight_that_waited_for_its_time_is_spaced_from_when_it_started() {
    let dead = Answer {
        takes: Duration::ZERO,
        brings: Brings::Token {
            lifetime: Some(Duration::ZERO),
            again: false,
        },
    };
    let fails = Answer {
        takes: Duration::ZERO,
        brings: Brings::Error {
            retry: Retry::Later,
            wait: None,
        },
    };
    let call = Step::Call { can_resend: false };
    let (waits, slept) = (call.clone(), Step::Suspend(secs(3_600)));
    let steps = vec![
        call.clone(),
        waits,
        slept,
        Step::Pass(secs(1)),
        call.clone(),
    ];
    let starts = run(vec![dead.clone()], 0.0, steps);
    assert_eq!(starts.len(), 3);
    assert!(starts[2] >= starts[1] + secs(1), "{starts:?}");
    let (waits, hurry) = (Step::Try, Step::Reject);
    let steps = vec![call.clone(), waits, Step::Pass(secs(0)), hurry, call];
    assert_eq!(run(vec![dead, fails], 0.0, steps).len(), 2);
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

fn boundaries() -> impl Strategy<Value = Step> {
    let boundary = prop::sample::select(vec![Boundary::Ageing, Boundary::Margin, Boundary::End]);
    let a_little = prop_oneof![
        1 => (0..1_000u64).prop_map(Duration::from_nanos),
        2 => (0..1_500u64).prop_map(Duration::from_millis),
        1 => (0..400u64).prop_map(secs),
    ];
    (boundary, any::<bool>(), a_little)
        .prop_map(|(boundary, before, a_little)| Step::PassTo(boundary, before, a_little))
}

/// Clocks that step make some rules weaker: without them, all are exact.
fn steps(clocks_step: bool) -> impl Strategy<Value = Vec<Step>> {
    let apart = move |step: fn(Duration) -> Step| {
        let step = if clocks_step { step } else { Step::Pass };
        time().prop_map(step)
    };
    let step = prop_oneof![
        8 => time().prop_map(Step::Pass),
        8 => boundaries(),
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

}

proptest! {
    // Each is of hundreds of calls.
    #![proptest_config(ProptestConfig::with_cases(32))]

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
        // Now and then it is quiet, but not for as long as it takes to begin anew.
        pauses in prop::collection::vec(
            prop_oneof![30 => 1..700u64, 1 => 60_000..299_000u64],
            300..400,
        ),
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
