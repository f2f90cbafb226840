//! Tests that need private access: retries within a flight, `Retry-After`, and renewal after a 401.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is for tests"
)]

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, PoisonError, Weak},
    task,
    time::Duration,
};

use super::{
    shared::{JITTER, Shared},
    state::Snapshot,
    *,
};
use crate::{
    clock::{ManualClock, Moment},
    error::{Error, ErrorKind, Retry},
    sync::{Mutex, MutexGuard},
    token::{AccessToken, FetchReason, TokenRequest, TokenResponse, TokenSource},
};

mod sequences;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns the errors of its script, then tokens that live an hour: `token-2` for the second fetch.
#[derive(Clone)]
struct Source(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    errors: VecDeque<Error>,
    always: Option<Error>,
    value: Option<&'static str>,
    blocked: bool,
    fetches: usize,
    at: Vec<Moment>,
    clock: ManualClock,
}

impl TokenSource for Source {
    async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
        let blocked = {
            let mut script = self.0.lock().unwrap();
            script.fetches += 1;
            let now = script.clock.moment();
            script.at.push(now);
            script.blocked
        };
        while blocked && self.0.lock().unwrap().blocked {
            tokio::task::yield_now().await;
        }
        let mut script = self.0.lock().unwrap();
        let error = script.errors.pop_front().or_else(|| script.always.clone());
        if let Some(error) = error {
            return Err(error);
        }
        let numbered = format!("token-{}", script.fetches);
        let value = script.value.map_or(numbered, str::to_owned);
        TokenResponse::builder(value)
            .expires_in(secs(3_600))
            .build()
    }
}

impl Source {
    fn with_cache() -> (ManualClock, Self, TokenCache) {
        let clock = ManualClock::new();
        let script = Script {
            clock: clock.clone(),
            ..Script::default()
        };
        let source = Self(Arc::new(Mutex::new(script)));
        let cache = TokenCache::builder(source.clone()).clock(clock.clone());
        (clock, source, cache.build())
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn fetches(&self) -> usize {
        self.script().fetches
    }

    /// The pauses between fetches.
    fn pauses(&self) -> Vec<Duration> {
        let script = self.script();
        script.at.windows(2).map(|p| p[1].since(p[0])).collect()
    }
}

/// An error that allows a retry within the flight, such as a 503.
fn soon(server_wait: Option<u64>) -> Error {
    Error::build(ErrorKind::Status, Retry::Soon, "test")
        .server_wait(server_wait.map(secs))
        .done()
}

/// Advances the clock by `duration`, from one wake-up to the next.
async fn pass(clock: &ManualClock, duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        clock.settle().await;
        let step = clock.next_wakeup().map_or(left, |wake| wake.min(left));
        clock.advance(step);
        left -= step;
    }
    clock.settle().await;
}

fn call(cache: &TokenCache) -> tokio::task::JoinHandle<Result<AccessToken, Error>> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.token().await })
}

fn renew(
    cache: &TokenCache,
    rejected: &AccessToken,
) -> tokio::task::JoinHandle<Option<AccessToken>> {
    let (cache, rejected) = (cache.clone(), rejected.clone());
    tokio::spawn(async move { cache.renew(&rejected).await })
}

#[tokio::test]
async fn p51_awaited_flight_succeeds_on_its_third_attempt() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(None), soon(None)]);
    let waiter = call(&cache);
    pass(&clock, secs(1)).await;
    let token = waiter.await.unwrap().unwrap();
    assert_eq!(token.expose_secret(), "token-3");
    let pauses = [200, 400].map(Duration::from_millis);
    assert_eq!(source.pauses(), pauses);
}

#[tokio::test]
async fn p51_awaited_flight_fails_after_three_attempts() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    let waiter = call(&cache);
    pass(&clock, secs(10)).await;
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(1)));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test]
async fn p51_background_flight_makes_one_attempt() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    cache.prefetch();
    pass(&clock, secs(10)).await;
    assert_eq!(source.fetches(), 1);
}

#[tokio::test]
async fn p51_background_flight_joined_by_a_caller_makes_three_attempts() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    source.script().blocked = true;
    cache.prefetch();
    clock.settle().await;
    let waiter = call(&cache);
    clock.settle().await;
    source.script().blocked = false;
    pass(&clock, secs(10)).await;
    waiter.await.unwrap().unwrap_err();
    assert_eq!(source.fetches(), 3);
}

#[tokio::test]
async fn p40_lifetime_counts_from_the_attempt_that_succeeded() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(2))]);
    let start = clock.system_time();
    let waiter = call(&cache);
    pass(&clock, secs(3)).await;
    let token = waiter.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(start + secs(3_602)));
}

#[tokio::test]
async fn p51_short_retry_after_is_obeyed_within_the_flight() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(2))]);
    let waiter = call(&cache);
    pass(&clock, secs(5)).await;
    waiter.await.unwrap().unwrap();
    assert_eq!(source.pauses(), [secs(2)]);
}

#[tokio::test]
async fn p236_long_retry_after_ends_the_flight_and_is_obeyed_up_to_ten_minutes() {
    for (asked, obeyed) in [(120, 120), (999_999, 600)] {
        let (clock, source, cache) = Source::with_cache();
        source.script().errors = VecDeque::from([soon(Some(asked))]);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(secs(obeyed)));
        clock.advance(secs(obeyed) - Duration::from_millis(1));
        cache.token().await.unwrap_err();
        assert_eq!(source.fetches(), 1);
        clock.advance(Duration::from_millis(1));
        cache.token().await.unwrap();
        assert_eq!(source.fetches(), 2);
    }
}

#[tokio::test]
async fn c14_outage_under_load_causes_at_most_seven_flights_of_three_attempts_in_a_minute() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    let mut callers = Vec::new();
    for _ in 0..6_000 {
        callers.push(call(&cache));
        pass(&clock, Duration::from_millis(10)).await;
        callers.retain(|caller| !caller.is_finished());
        // No caller waits longer than three attempts take.
        assert!(callers.len() <= 61, "{}", callers.len());
    }
    assert!(
        (15..=21).contains(&source.fetches()),
        "{}",
        source.fetches()
    );
}

#[tokio::test]
async fn fetch_timeout_covers_all_attempts_of_a_flight() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(3)), soon(Some(3))]);
    let waiter = call(&cache);
    // The third attempt starts after six seconds and hangs.
    pass(&clock, Duration::from_millis(5_500)).await;
    source.script().blocked = true;
    pass(&clock, Duration::from_millis(24_499)).await;
    assert_eq!(source.fetches(), 3);
    assert!(!waiter.is_finished());
    pass(&clock, Duration::from_millis(1)).await;
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn p65_request_rejected_with_401_gets_the_next_token() {
    let (_, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    let next = cache.renew(&first).await.unwrap();
    assert_eq!(next.expose_secret(), "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn p66_late_401_gets_the_newer_token_without_a_token_request() {
    let (_, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    let next = cache.renew(&first).await.unwrap();
    assert_eq!(next.expose_secret(), "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn p66_fifty_simultaneous_401s_share_one_token_request() {
    let (clock, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    source.script().blocked = true;
    let requests: Vec<_> = (0..50).map(|_| renew(&cache, &first)).collect();
    clock.settle().await;
    source.script().blocked = false;
    for request in requests {
        let next = request.await.unwrap().unwrap();
        assert_eq!(next.expose_secret(), "token-2");
    }
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn c13_renewal_yields_no_token_when_the_request_fails_or_returns_the_same_token() {
    let later = Error::from_source("test");
    let cases: [(Option<Error>, Option<&'static str>); 2] =
        [(Some(later), None), (None, Some("token-1"))];
    for (error, value) in cases {
        let (_, source, cache) = Source::with_cache();
        let first = cache.token().await.unwrap();
        source.script().always = error;
        source.script().value = value;
        assert!(cache.renew(&first).await.is_none());
        assert_eq!(source.fetches(), 2);
        // The backoff forbids another fetch: no wait, no fetch.
        let mut again = pin!(cache.renew(&first));
        let mut context = task::Context::from_waker(task::Waker::noop());
        let answer = again.as_mut().poll(&mut context);
        assert!(matches!(answer, task::Poll::Ready(None)));
        assert_eq!(source.fetches(), 2);
        assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    }
}

#[tokio::test]
async fn resendable_request_does_not_wait_while_its_token_is_suspect() {
    let (clock, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    source.script().blocked = true;
    cache.reject(&first);
    clock.settle().await;
    assert!(matches!(cache.acquire(true), Acquire::Now(_)));
    assert!(matches!(cache.acquire(false), Acquire::Wait(_)));
}

/// A service's `call` starts the flight, and its future is polled later. A flight that fails in between
/// must still count as awaited.
#[tokio::test]
async fn p51_flight_of_a_caller_that_is_polled_late_makes_three_attempts() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors.extend([soon(None), soon(None)]);
    let Acquire::Wait(waiting) = cache.acquire(false) else {
        panic!("there is no token");
    };
    pass(&clock, secs(1)).await;
    assert_eq!(source.fetches(), 3);
    let token = cache.wait(waiting, false).await.unwrap();
    assert_eq!(token.expose_secret(), "token-3");

    // No caller waits for this flight.
    let (clock, source, cache) = Source::with_cache();
    source.script().errors.push_back(soon(None));
    cache.prefetch();
    assert!(cache.try_token().is_none());
    pass(&clock, Duration::from_millis(900)).await;
    assert_eq!(source.fetches(), 1);
}

/// A request keeps its token's id, which stands for the token's value in comparisons.
#[tokio::test]
async fn p66_token_is_recalled_by_id_until_a_different_token_arrives() {
    let (_clock, source, cache) = Source::with_cache();
    source.script().value = Some("the-same");
    let first = cache.token().await.unwrap();
    assert!(cache.recall(first.id()).is_some());

    let second = cache.refresh().await.unwrap();
    assert!(second.same_value(&first));
    // A late 401 for the first is about the second, too.
    assert!(cache.recall(first.id()).is_some());

    source.script().value = Some("another");
    let third = cache.refresh().await.unwrap();
    assert!(cache.recall(first.id()).is_none());
    assert!(cache.recall(third.id()).is_some());
}
