//! A scripted token source, and helpers that advance the manual clock.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bearer_auth::{
    AccessToken, Error, FetchReason, TokenCache, TokenCacheBuilder, TokenRequest, TokenResponse,
    TokenSource, testing::ManualClock,
};
use tokio::{sync::Semaphore, task::JoinHandle};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A scripted token source that counts its calls. By default it returns `token-1`, `token-2` … at
/// once, each with a lifetime of an hour.
#[derive(Clone)]
pub(crate) struct Idp(Arc<Inner>);

struct Inner {
    clock: ManualClock,
    script: Mutex<Script>,
    gate: Semaphore,
}

struct Script {
    answer: Answer,
    lifetime: Option<Duration>,
    prefix: &'static str,
    issued: usize,
    held: bool,
    fetches: Vec<Fetch>,
}

/// A call of [`TokenSource::fetch`].
#[derive(Clone)]
pub(crate) struct Fetch {
    pub(crate) at: SystemTime,
    pub(crate) reason: FetchReason,
    pub(crate) rejected: Option<String>,
    pub(crate) previous: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) enum Answer {
    NewToken,
    /// The last token again.
    SameToken,
    /// A retryable error.
    Fail,
    /// A permanent error.
    FailPermanently,
    Panic,
    /// `fetch` never completes.
    Silence,
}

impl Idp {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            script: Mutex::new(Script {
                answer: Answer::NewToken,
                lifetime: Some(secs(3_600)),
                prefix: "token",
                issued: 0,
                held: false,
                fetches: Vec::new(),
            }),
            gate: Semaphore::new(0),
        }))
    }

    /// A clock, a source, and a cache that uses them.
    pub(crate) fn with_cache() -> (ManualClock, Self, TokenCache) {
        let clock = ManualClock::new();
        let idp = Self::new(&clock);
        let cache = idp.cache();
        (clock, idp, cache)
    }

    pub(crate) fn cache(&self) -> TokenCache {
        self.builder().build()
    }

    pub(crate) fn builder(&self) -> TokenCacheBuilder {
        TokenCache::builder(self.clone()).clock(self.0.clock.clone())
    }

    /// Sets the answer from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.lock().answer = answer;
    }

    /// Sets the lifetime of later tokens; `None`: without an expiry.
    pub(crate) fn lifetime(&self, lifetime: impl Into<Option<Duration>>) {
        self.lock().lifetime = lifetime.into();
    }

    pub(crate) fn prefix(&self, prefix: &'static str) {
        self.lock().prefix = prefix;
    }

    /// From now on each answer waits for a [`release`](Self::release).
    pub(crate) fn hold(&self) {
        self.lock().held = true;
    }

    /// Releases one answer.
    pub(crate) fn release(&self) {
        self.0.gate.add_permits(1);
    }

    /// Answers later calls at once. Calls that wait continue to wait.
    pub(crate) fn stop_holding(&self) {
        self.lock().held = false;
    }

    /// The number of token requests.
    pub(crate) fn fetches(&self) -> usize {
        self.lock().fetches.len()
    }

    /// The number of tokens issued.
    pub(crate) fn issued(&self) -> usize {
        self.lock().issued
    }

    pub(crate) fn log(&self) -> Vec<Fetch> {
        self.lock().fetches.clone()
    }

    /// The times between the starts of consecutive token requests.
    pub(crate) fn pauses(&self) -> Vec<Duration> {
        let log = self.log();
        log.windows(2)
            .map(|pair| pair[1].at.duration_since(pair[0].at).unwrap())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap()
    }
}

impl TokenSource for Idp {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let secret = |token: &AccessToken| token.expose_secret().to_owned();
        let held = {
            let mut script = self.lock();
            script.fetches.push(Fetch {
                at: self.0.clock.system_time(),
                reason: request.reason,
                rejected: request.rejected.as_ref().map(secret),
                previous: request.previous.as_ref().map(secret),
            });
            script.held
        };
        if held {
            self.0.gate.acquire().await.unwrap().forget();
        }
        let (answer, lifetime, token) = {
            let mut script = self.lock();
            if matches!(script.answer, Answer::NewToken) {
                script.issued += 1;
            }
            let token = format!("{}-{}", script.prefix, script.issued);
            (script.answer, script.lifetime, token)
        };
        match answer {
            Answer::NewToken | Answer::SameToken => {
                let response = TokenResponse::builder(token);
                match lifetime {
                    Some(lifetime) => response.expires_in(lifetime).build(),
                    None => response.build(),
                }
            }
            Answer::Fail => Err(Error::from_source("the server is down")),
            Answer::FailPermanently => Err(Error::from_source_permanent("the client is unknown")),
            Answer::Panic => panic!("scripted: the source panics"),
            Answer::Silence => std::future::pending().await,
        }
    }
}

/// Advances the clock by `duration`, and stops at every timer in between.
pub(crate) async fn pass(clock: &ManualClock, duration: Duration) {
    let mut left = duration;
    loop {
        clock.settle().await;
        let step = clock.next_wakeup().map_or(left, |wake| wake.min(left));
        clock.advance(step);
        left -= step;
        if left.is_zero() {
            break;
        }
    }
    clock.settle().await;
}

/// Spawns a caller of `token`.
pub(crate) fn call(cache: &TokenCache) -> JoinHandle<Result<AccessToken, Error>> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.token().await })
}

/// Spawns `n` callers of `token`.
pub(crate) fn calls(cache: &TokenCache, n: usize) -> Vec<JoinHandle<Result<AccessToken, Error>>> {
    (0..n).map(|_| call(cache)).collect()
}

/// Returns the result of `token`, which must be ready at the first poll.
pub(crate) fn at_once(cache: &TokenCache) -> Result<String, Error> {
    match poll_once(pin!(cache.token())) {
        Poll::Ready(result) => result.map(|token| token.expose_secret().to_owned()),
        Poll::Pending => panic!("the caller had to wait"),
    }
}

/// Whether a caller has to wait. (The flight continues without the caller.)
pub(crate) fn must_wait(cache: &TokenCache) -> bool {
    poll_once(pin!(cache.token())).is_pending()
}

/// Waits for the token, and returns its value.
pub(crate) async fn secret(cache: &TokenCache) -> String {
    let token = cache.token().await.unwrap();
    token.expose_secret().to_owned()
}

pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
