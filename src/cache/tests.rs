//! What shows only from inside: errors that are worth another attempt at once or carry a
//! `Retry-After`, and the way of a request after a 401.

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

/// Answers what stands in its script, and then tokens for an hour: `token-2` to the second fetch.
#[derive(Clone)]
struct Source(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    errors: VecDeque<Error>,
    always: Option<Error>,
    value: Option<&'static str>,
    held: bool,
    fetches: usize,
    at: Vec<Moment>,
    clock: ManualClock,
}

impl TokenSource for Source {
    async fn fetch(&self, _request: TokenRequest) -> Result<TokenResponse, Error> {
        let held = {
            let mut script = self.0.lock().unwrap();
            script.fetches += 1;
            let now = script.clock.moment();
            script.at.push(now);
            script.held
        };
        while held && self.0.lock().unwrap().held {
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

    fn pauses(&self) -> Vec<Duration> {
        let script = self.script();
        script.at.windows(2).map(|p| p[1].since(p[0])).collect()
    }
}

/// Worth another attempt at once: a server that is overloaded, say.
fn soon(server_wait: Option<u64>) -> Error {
    Error::build(ErrorKind::Status, Retry::Soon, "test")
        .server_wait(server_wait.map(secs))
        .done()
}

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
async fn p51_a_flight_that_callers_wait_for_makes_three_attempts() {
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
async fn p51_a_flight_makes_three_attempts_and_no_more() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    let waiter = call(&cache);
    pass(&clock, secs(10)).await;
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(1)));
    assert_eq!(source.fetches(), 3);
}

#[tokio::test]
async fn p51_a_flight_in_the_background_makes_one_attempt() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    cache.prefetch();
    pass(&clock, secs(10)).await;
    assert_eq!(source.fetches(), 1);
}

#[tokio::test]
async fn p51_a_background_flight_that_callers_join_makes_three_attempts() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    source.script().held = true;
    cache.prefetch();
    clock.settle().await;
    let waiter = call(&cache);
    clock.settle().await;
    source.script().held = false;
    pass(&clock, secs(10)).await;
    waiter.await.unwrap().unwrap_err();
    assert_eq!(source.fetches(), 3);
}

#[tokio::test]
async fn p40_the_lifetime_counts_from_the_attempt_that_brought_the_token() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(2))]);
    let start = clock.system_time();
    let waiter = call(&cache);
    pass(&clock, secs(3)).await;
    let token = waiter.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(start + secs(3_602)));
}

#[tokio::test]
async fn p51_a_short_retry_after_is_waited_for_within_the_flight() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(2))]);
    let waiter = call(&cache);
    pass(&clock, secs(5)).await;
    waiter.await.unwrap().unwrap();
    assert_eq!(source.pauses(), [secs(2)]);
}

#[tokio::test]
async fn p236_a_long_retry_after_ends_the_flight_and_is_obeyed_up_to_ten_minutes() {
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
async fn c14_an_outage_s_first_minute_is_seven_flights_of_three_attempts_whatever_the_load() {
    let (clock, source, cache) = Source::with_cache();
    source.script().always = Some(soon(None));
    let mut callers = Vec::new();
    for _ in 0..6_000 {
        callers.push(call(&cache));
        pass(&clock, Duration::from_millis(10)).await;
        callers.retain(|caller| !caller.is_finished());
        // Nobody is kept longer than three attempts take.
        assert!(callers.len() <= 61, "{}", callers.len());
    }
    assert!(
        (15..=21).contains(&source.fetches()),
        "{}",
        source.fetches()
    );
}

#[tokio::test]
async fn a_flight_takes_thirty_seconds_with_all_its_attempts() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors = VecDeque::from([soon(Some(3)), soon(Some(3))]);
    let waiter = call(&cache);
    // The third attempt begins after six seconds and never ends.
    pass(&clock, Duration::from_millis(5_500)).await;
    source.script().held = true;
    pass(&clock, Duration::from_millis(24_499)).await;
    assert_eq!(source.fetches(), 3);
    assert!(!waiter.is_finished());
    pass(&clock, Duration::from_millis(1)).await;
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn p65_after_a_401_the_request_gets_the_next_token() {
    let (_, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    let next = cache.renew(&first).await.unwrap();
    assert_eq!(next.expose_secret(), "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn p66_after_a_late_401_the_request_gets_the_newer_token_without_a_fetch() {
    let (_, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    let next = cache.renew(&first).await.unwrap();
    assert_eq!(next.expose_secret(), "token-2");
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn p66_fifty_401s_at_once_share_one_fetch_and_its_token() {
    let (clock, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    source.script().held = true;
    let requests: Vec<_> = (0..50).map(|_| renew(&cache, &first)).collect();
    clock.settle().await;
    source.script().held = false;
    for request in requests {
        let next = request.await.unwrap().unwrap();
        assert_eq!(next.expose_secret(), "token-2");
    }
    assert_eq!(source.fetches(), 2);
}

#[tokio::test]
async fn c13_after_a_401_there_is_no_other_token_when_the_fetch_fails_or_brings_the_same() {
    let later = Error::from_source("test");
    let ways: [(Option<Error>, Option<&'static str>); 2] =
        [(Some(later), None), (None, Some("token-1"))];
    for (error, value) in ways {
        let (_, source, cache) = Source::with_cache();
        let first = cache.token().await.unwrap();
        source.script().always = error;
        source.script().value = value;
        assert!(cache.renew(&first).await.is_none());
        assert_eq!(source.fetches(), 2);
        // Not allowed yet: no wait, no fetch.
        let mut again = pin!(cache.renew(&first));
        let mut context = task::Context::from_waker(task::Waker::noop());
        let answer = again.as_mut().poll(&mut context);
        assert!(matches!(answer, task::Poll::Ready(None)));
        assert_eq!(source.fetches(), 2);
        assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    }
}

#[tokio::test]
async fn a_request_that_can_be_sent_again_does_not_wait_for_a_token_under_suspicion() {
    let (clock, source, cache) = Source::with_cache();
    let first = cache.token().await.unwrap();
    source.script().held = true;
    cache.reject(&first);
    clock.settle().await;
    assert!(matches!(cache.acquire(true), Acquire::Now(_)));
    assert!(matches!(cache.acquire(false), Acquire::Wait(_)));
}

/// A service's `call` starts the flight, and its future is polled later: by then a flight that
/// fails at once must not have ended as one that nobody waits for.
#[tokio::test]
async fn p51_a_caller_that_is_slow_to_wait_has_its_three_attempts_all_the_same() {
    let (clock, source, cache) = Source::with_cache();
    source.script().errors.extend([soon(None), soon(None)]);
    let Acquire::Wait(waiting) = cache.acquire(false) else {
        panic!("there is no token");
    };
    pass(&clock, secs(1)).await;
    assert_eq!(source.fetches(), 3);
    let token = cache.wait(waiting, false).await.unwrap();
    assert_eq!(token.expose_secret(), "token-3");

    // Nobody is going to wait for this one.
    let (clock, source, cache) = Source::with_cache();
    source.script().errors.push_back(soon(None));
    cache.prefetch();
    assert!(cache.try_token().is_none());
    pass(&clock, Duration::from_millis(900)).await;
    assert_eq!(source.fetches(), 1);
}

/// What a request remembers of its token is compared in place of the token's value.
#[tokio::test]
async fn p66_a_token_is_recalled_until_there_is_another_and_also_when_it_comes_twice() {
    let (_clock, source, cache) = Source::with_cache();
    source.script().value = Some("the-same");
    let first = cache.token().await.unwrap();
    assert!(cache.recall(first.id()).is_some());

    let second = cache.refresh().await.unwrap();
    assert!(second.same_value(&first));
    // A late answer about the first is about the second too.
    assert!(cache.recall(first.id()).is_some());

    source.script().value = Some("another");
    let third = cache.refresh().await.unwrap();
    assert!(cache.recall(first.id()).is_none());
    assert!(cache.recall(third.id()).is_some());
}
