//! The cache under a model checker: many tasks, and thousands of the orders in which they can meet.
//!
//! ```text
//! RUSTFLAGS='--cfg bearer_auth_model' cargo test --manifest-path tests/model/Cargo.toml
//! ```
//!
//! It is the crate's own code that runs here, as a user sees it; only what lies below (locks,
//! channels, tasks: `src/sync`) is [`shuttle`]'s, which says at each step which task goes on. A
//! test passes when all orders that were tried keep what it says *and* end: shuttle fails one in
//! which all tasks wait, and one that goes on and on. Time stands still unless a test moves it, so
//! no timeout ever helps a task out that nobody woke.
//!
//! Orders are drawn at random and by PCT (which finds a fault that needs few switches with a known
//! probability), from fixed seeds: two runs are the same. A failure prints its order:
//! `MODEL_SCHEDULE=<that>` (in one line) and the test's name run just this one, while the code stays
//! the same; `MODEL_ORDERS=100000` tries more of each kind.
//!
//! What was taken away from the crate to see them fail, and what did (the least that does):
//!
//! | without | fails |
//! |---|---|
//! | the second look under the lock, before a flight starts | `callers_without_a_token_share_one_flight` |
//! | `refresh` joining the flight under way; a rejection joining it | `at_most_one_flight_at_a_time_whatever_starts_it` |
//! | sending the outcome | `every_waiter_gets_the_token_of_its_flight`, `…_error_…` |
//! | publishing the snapshot *before* the lock is released | `a_caller_who_comes_when_a_flight_has_landed_needs_no_other` |
//! | closing the channel of a flight that was dropped, or superseded | `no_caller_hangs_whatever_becomes_of_its_flight` |
//! | spawning *after* the lock is released | `a_runtime_that_is_shut_down_leaves_no_flight_behind` |
//! | comparing the rejected token with the one in hand | `a_late_rejection_never_evicts_a_newer_token` |
//! | `renew` waiting, or taking the newer token that is there | `requests_that_are_refused_share_one_renewal` |
//! | a flight of its own, which no caller takes with it | `callers_who_go_take_nothing_with_them` |
//! | a panic ending the flight, as a failure, and its error | `a_source_that_panics_poisons_nothing` |
//! | numbering flights on, and asking a flight that lands for its number | `what_a_flight_brings_after_forget_is_not_kept` |
//! | `WeakTokenCache::forget` | `what_a_source_forgets_in_its_own_flight_is_not_kept` |
//! | the keeper's guards being counted, its one task, and its end | `the_keeper_goes_with_its_last_guard`, `the_keeper_renews_with_nobody_calling` |
//!
//! What this does not show: faults of weak memory orderings, and of tokio's own channels. And all
//! tasks are on one thread here, so that a lock may look poisoned by a panic elsewhere, which in a
//! program it would not.

#[cfg(not(bearer_auth_model))]
compile_error!("this needs RUSTFLAGS='--cfg bearer_auth_model'");

use std::{
    env,
    future::Future,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bearer_auth::{
    AccessToken, Error, TokenCache, TokenCacheBuilder, TokenRequest, TokenResponse, TokenSource,
    WeakTokenCache, sync::Crash, testing::ManualClock,
};
use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{
        PctScheduler, RandomScheduler, ReplayScheduler, Scheduler,
        UncontrolledNondeterminismCheckScheduler,
    },
};

/// How many orders of each kind, if nobody says otherwise.
const ORDERS: usize = 2_000;
/// How many of them are run twice.
const REPEATED: usize = 50;
const SEED: u64 = 0x6265_6172_6572;
/// An order that takes more steps does not end. Those that do take a few hundred.
const MOST_STEPS: usize = 20_000;

/// Runs `scenario` in many orders.
pub fn check<F: Future<Output = ()>>(scenario: impl Fn() -> F + Send + Sync + 'static) {
    let scenario = Arc::new(move || shuttle::future::block_on(scenario()));
    let orders = env::var("MODEL_ORDERS").map_or(ORDERS, |n| n.parse().expect("MODEL_ORDERS"));
    if let Ok(schedule) = env::var("MODEL_SCHEDULE") {
        return run(ReplayScheduler::new_from_encoded(schedule.trim()), scenario);
    }
    let random = |orders| RandomScheduler::new_from_seed(SEED, orders);
    // That an order can be repeated: nothing else decides what happens in it.
    let twice = UncontrolledNondeterminismCheckScheduler::new(random(REPEATED));
    run(twice, Arc::clone(&scenario));
    run(random(orders), Arc::clone(&scenario));
    for depth in [2, 4] {
        let scheduler = PctScheduler::new_from_seed(SEED, depth, orders);
        run(scheduler, Arc::clone(&scenario));
    }
}

fn run(scheduler: impl Scheduler + 'static, scenario: Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    // About orderings of atomics: see above.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || scenario());
}

/// A task of its own.
pub fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> shuttle::future::JoinHandle<T> {
    shuttle::future::spawn(task)
}

/// One of `0..n`, as the order says.
pub fn choose(n: usize) -> usize {
    use shuttle::rand::Rng as _;
    shuttle::rand::thread_rng().gen_range(0..n)
}

/// Waits once, for nothing.
pub async fn turn() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Until no flight is under way.
pub async fn landed(cache: &TokenCache) {
    while cache.status().fetching {
        shuttle::future::yield_now().await;
    }
}

/// The number of `token-<number>`.
pub fn number(token: &AccessToken) -> usize {
    let value = token.expose_secret();
    let number = value.strip_prefix("token-").map(str::parse);
    number.expect("a token of ours").expect("its number")
}

/// How a fetch ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// `token-<number of the fetch>`, for an hour.
    Token,
    Error,
    Panic,
}

/// A source that takes its time, and keeps a record.
#[derive(Clone, Default)]
pub struct Source(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    /// To the fetches in their order; to all further ones, a token.
    answers: Vec<Answer>,
    requests: Vec<TokenRequest>,
    under_way: usize,
    most_at_once: usize,
    cache: Option<WeakTokenCache>,
    forgets_in: Option<usize>,
}

impl Source {
    pub fn answering(answers: impl Into<Vec<Answer>>) -> Self {
        let source = Self::default();
        source.0.lock().unwrap().answers = answers.into();
        source
    }

    /// A cache of this, and its clock.
    pub fn cache(&self) -> (TokenCache, ManualClock) {
        self.cache_with(|builder| builder)
    }

    pub fn cache_with(
        &self,
        settings: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> (TokenCache, ManualClock) {
        let clock = ManualClock::new();
        let builder = TokenCache::builder(self.clone()).clock(clock.clone());
        (settings(builder).build(), clock)
    }

    /// The fetch of this number has the cache forget everything, as a source that signs out.
    pub fn forget_in(&self, fetch: usize) {
        self.0.lock().unwrap().forgets_in = Some(fetch);
    }

    pub fn fetches(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    pub fn requests(&self) -> Vec<TokenRequest> {
        self.0.lock().unwrap().requests.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.0.lock().unwrap().most_at_once
    }

    /// Whether nobody else has this source any more: no cache, no flight, no keeper.
    pub fn is_left_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let (fetch, answer, forgets) = {
            let mut record = self.0.lock().unwrap();
            record.requests.push(request);
            record.under_way += 1;
            record.most_at_once = record.most_at_once.max(record.under_way);
            let fetch = record.requests.len();
            let answer = record.answers.get(fetch - 1).copied();
            let forgets = record.cache.clone();
            let forgets = forgets.filter(|_| record.forgets_in == Some(fetch));
            (fetch, answer.unwrap_or(Answer::Token), forgets)
        };
        let _ended = Ended(self);
        turn().await;
        if let Some(cache) = forgets {
            cache.forget();
        }
        turn().await;
        match answer {
            Answer::Token => TokenResponse::builder(format!("token-{fetch}"))
                .expires_in(Duration::from_secs(3_600))
                .build(),
            Answer::Error => Err(Error::from_source("no token today")),
            Answer::Panic => std::panic::resume_unwind(Box::new(Crash)),
        }
    }

    fn on_attach(&self, cache: WeakTokenCache) {
        self.0.lock().unwrap().cache = Some(cache);
    }
}

struct Ended<'a>(&'a Source);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().under_way -= 1;
    }
}
