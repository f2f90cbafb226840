//! The cache under a model checker: many tasks, in thousands of the orders in which they can run.
//!
//! ```text
//! RUSTFLAGS='--cfg bearer_auth_model' cargo test --manifest-path tests/model/Cargo.toml
//! ```
//!
//! The crate's own code runs here, through its public API. Only the layer below it (locks, channels,
//! tasks: `src/sync`) is [`shuttle`]'s, which decides at each step which task runs next. A test passes
//! when its assertions are true in each order that was tried, and each order ends: shuttle reports a
//! deadlock, and an order with too many steps. Time stands still unless a test advances it, so no
//! timeout hides a lost wake-up.
//!
//! Orders are chosen at random and by PCT, which finds faults that need few switches with a known
//! probability. The seeds are fixed: two runs are the same. A failure prints its order. To run only that
//! order on unchanged code, set `MODEL_SCHEDULE` to it (in one line) and give the test's name.
//! `MODEL_ORDERS=100000` tries more orders of each kind.
//!
//! The tests in `tests/cache.rs` explore:
//!
//! - which callers, refreshes and rejections share a flight, and what its waiters get;
//! - flights that fail, panic, are dropped, superseded, or lose their runtime;
//! - rejections that come late, and simultaneous 401s through the layer;
//! - callers that are dropped;
//! - `forget` during a flight, also by the source itself;
//! - the task of `keep_fresh`: one for all guards, and none after the last.
//!
//! This does not show faults of weak memory orderings, nor faults of tokio's own channels. All tasks run
//! on one thread here, so a panic can poison a lock of another task, which it does not in a program.

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

/// The number of orders of each kind, unless `MODEL_ORDERS` sets it.
const ORDERS: usize = 2_000;
/// The number of orders that are run twice.
const REPEATED: usize = 50;
const SEED: u64 = 0x6265_6172_6572;
/// An order with more steps counts as endless. Usual ones take a few hundred.
const MOST_STEPS: usize = 20_000;

/// Runs `scenario` in many orders.
pub fn check<F: Future<Output = ()>>(scenario: impl Fn() -> F + Send + Sync + 'static) {
    let scenario = Arc::new(move || shuttle::future::block_on(scenario()));
    let orders = env::var("MODEL_ORDERS").map_or(ORDERS, |n| n.parse().expect("MODEL_ORDERS"));
    if let Ok(schedule) = env::var("MODEL_SCHEDULE") {
        return run(ReplayScheduler::new_from_encoded(schedule.trim()), scenario);
    }
    let random = |orders| RandomScheduler::new_from_seed(SEED, orders);
    // Checks that an order can be repeated, so that nothing else decides what happens in it.
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
    // The warnings are about memory orderings: see above.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || scenario());
}

/// Spawns a task.
pub fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> shuttle::future::JoinHandle<T> {
    shuttle::future::spawn(task)
}

/// Returns one of `0..n`, which the order decides.
pub fn choose(n: usize) -> usize {
    use shuttle::rand::Rng as _;
    shuttle::rand::thread_rng().gen_range(0..n)
}

/// Lets the other tasks run once.
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

/// Waits until no flight is in progress.
pub async fn landed(cache: &TokenCache) {
    while cache.status().fetching {
        shuttle::future::yield_now().await;
    }
}

/// The number of `token-<number>`.
pub fn number(token: &AccessToken) -> usize {
    let value = token.expose_secret();
    let number = value.strip_prefix("token-").map(str::parse);
    number.expect("a token of `Source`").expect("its number")
}

/// How a fetch ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// `token-<number of the fetch>`, for an hour.
    Token,
    Error,
    Panic,
}

/// A source that lets other tasks run before it answers, and records its requests.
#[derive(Clone, Default)]
pub struct Source(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    /// The answers of the first fetches. All further ones return a token.
    answers: Vec<Answer>,
    requests: Vec<TokenRequest>,
    in_flight: usize,
    max_in_flight: usize,
    cache: Option<WeakTokenCache>,
    forgets_in: Option<usize>,
}

impl Source {
    pub fn answering(answers: impl Into<Vec<Answer>>) -> Self {
        let source = Self::default();
        source.0.lock().unwrap().answers = answers.into();
        source
    }

    /// A cache of this source, and its clock.
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

    /// Lets the fetch with this number call `forget` on the cache, as a source does that signs out.
    pub fn forget_in(&self, fetch: usize) {
        self.0.lock().unwrap().forgets_in = Some(fetch);
    }

    pub fn fetches(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    pub fn requests(&self) -> Vec<TokenRequest> {
        self.0.lock().unwrap().requests.clone()
    }

    pub fn max_in_flight(&self) -> usize {
        self.0.lock().unwrap().max_in_flight
    }

    /// Whether the source has no other owner: no cache, no flight, no keeper.
    pub fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl TokenSource for Source {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let (fetch, answer, forgets) = {
            let mut record = self.0.lock().unwrap();
            record.requests.push(request);
            record.in_flight += 1;
            record.max_in_flight = record.max_in_flight.max(record.in_flight);
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
        self.0.0.lock().unwrap().in_flight -= 1;
    }
}
