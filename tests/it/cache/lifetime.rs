//! How long a token lives, whatever the server says and whatever the clocks do.

use std::time::Duration;

use bearer_auth::{TokenCache, TokenResponse, source_fn, testing::ManualClock};

use crate::support::tokens::{
    Answer, Idp, at_once, call, calls, millis, must_wait, pass, secret, secs,
};

#[tokio::test]
async fn p40_the_lifetime_counts_from_when_the_token_was_asked_for() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    idp.lifetime(secs(20));
    let asked_at = clock.system_time();
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(secs(10));
    idp.release();
    let token = waiter.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(asked_at + secs(20)));
    clock.advance(secs(10) - Duration::from_nanos(1));
    assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    clock.advance(Duration::from_nanos(1));
    assert!(cache.try_token().is_none());
}

#[tokio::test]
async fn p40_a_source_can_say_that_it_asked_earlier_or_when_the_end_is() {
    let clock = ManualClock::new();
    let end = clock.system_time() + secs(100);
    let aged = TokenResponse::builder("aged")
        .expires_in(secs(130))
        .age(secs(30));
    let dated = TokenResponse::builder("dated").expires_at(end);
    for response in [aged, dated] {
        let response = response.build().unwrap();
        let clock = ManualClock::new();
        let source = source_fn(move |_| std::future::ready(Ok(response.clone())));
        let cache = TokenCache::builder(source).clock(clock.clone()).build();
        let token = cache.token().await.unwrap();
        assert_eq!(token.expires_at(), Some(end));
        clock.advance(secs(99));
        assert!(cache.status().ready);
        clock.advance(secs(1));
        assert!(!cache.status().ready);
    }
}

#[tokio::test]
async fn p41_a_token_without_a_lifetime_is_used_until_it_is_rejected() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(None);
    let token = cache.token().await.unwrap();
    assert_eq!(token.expires_at(), None);
    clock.advance(secs(10 * 365 * 86_400));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    cache.reject(&token);
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p41_a_default_lifetime_is_for_tokens_that_have_none() {
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    let cache = idp.builder().default_lifetime(secs(60)).build();
    let from = |lifetime| clock.system_time() + secs(lifetime);
    assert_eq!(cache.token().await.unwrap().expires_at(), Some(from(3_600)));
    idp.lifetime(None);
    assert_eq!(cache.refresh().await.unwrap().expires_at(), Some(from(60)));
    clock.advance(secs(60));
    assert!(cache.try_token().is_none());
}

#[tokio::test]
async fn p42_a_lifetime_beyond_measure_is_a_long_one() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(Duration::MAX);
    let token = cache.token().await.unwrap();
    assert!(token.expires_at().unwrap() > clock.system_time() + secs(50 * 365 * 86_400));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
}

#[tokio::test]
async fn p43_a_token_over_on_arrival_serves_those_who_waited_for_it_once() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(Duration::ZERO);
    let waiters = calls(&cache, 100);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    }
    assert_eq!(idp.fetches(), 1);
    assert!(cache.try_token().is_none(), "it is over");
    assert!(!cache.status().ready);
    // Those who come later wait for the next, a second after the last.
    let late = calls(&cache, 100);
    clock.settle().await;
    clock.advance(millis(999));
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    clock.advance(millis(1));
    for waiter in late {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    }
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p43_lifetimes_of_nothing_or_a_second_are_no_fetch_per_request() {
    for lifetime in [Duration::ZERO, secs(1)] {
        let (clock, idp, cache) = Idp::with_cache();
        idp.lifetime(lifetime);
        let mut waiters = Vec::new();
        for _ in 0..200 {
            waiters.extend(calls(&cache, 5));
            pass(&clock, millis(50)).await;
        }
        pass(&clock, secs(2)).await;
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        // Ten seconds of requests.
        assert!((9..=12).contains(&idp.fetches()), "{}", idp.fetches());
        assert!(idp.pauses().iter().all(|pause| *pause >= secs(1)));
    }
}

#[tokio::test]
async fn a_suspended_machine_does_not_wake_up_with_a_dead_token() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.suspend(secs(7_200));
    assert!(cache.try_token().is_none());
    assert!(!cache.status().ready);
    assert_eq!(secret(&cache).await, "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn a_clock_set_back_does_not_prolong_a_token() {
    let (clock, _, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.set_back(secs(86_400));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.advance(secs(3_599));
    assert!(cache.status().ready);
    clock.advance(secs(1));
    assert!(cache.try_token().is_none());
    assert_eq!(secret(&cache).await, "token-2");
}

#[tokio::test]
async fn c23_the_same_token_again_is_asked_for_at_quarters_of_its_rest() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    let first = cache.token().await.unwrap();
    let end = first.expires_at().unwrap();
    idp.answer(Answer::SameToken);
    let start = clock.system_time();
    for ms in (0..99_900).step_by(100) {
        let left = end.duration_since(clock.system_time()).unwrap();
        idp.lifetime(left);
        assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
        clock.settle().await;
        assert_eq!(cache.token().await.unwrap().expires_at(), Some(end), "{ms}");
        clock.advance(millis(100));
    }
    let asked: Vec<_> = idp
        .log()
        .into_iter()
        .skip(1)
        .map(|fetch| fetch.at.duration_since(start).unwrap())
        .collect();
    assert!(
        asked[0] >= secs(75) && asked[0] < millis(81_400),
        "{asked:?}"
    );
    for pair in asked.windows(2) {
        let rest = secs(100) - pair[0];
        let pause = pair[1] - pair[0];
        let least = secs(1).max(rest / 4);
        assert!(pause >= least && pause < least + millis(200), "{asked:?}");
    }
    assert!(asked.len() > 5, "{asked:?}");
}

#[tokio::test]
async fn c23_the_same_token_again_keeps_the_margins_of_its_first_lifetime() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    secret(&cache).await;
    clock.advance(secs(85));
    idp.answer(Answer::SameToken);
    idp.lifetime(secs(15));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    // 10 s before the end, not 1.5 s: a caller waits.
    clock.advance(secs(6));
    idp.hold();
    assert!(must_wait(&cache));
}

#[tokio::test]
async fn the_same_token_with_more_life_lives_longer() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    secret(&cache).await;
    clock.advance(secs(85));
    idp.answer(Answer::SameToken);
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    clock.advance(secs(60));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    let end = clock.system_time() + secs(40);
    assert_eq!(cache.status().expires_at, Some(end));
}

#[tokio::test]
async fn the_same_token_without_an_end_keeps_the_end_it_had() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    let end = cache.token().await.unwrap().expires_at();
    idp.answer(Answer::SameToken);
    idp.lifetime(None);
    cache.refresh().await.unwrap();
    assert_eq!(cache.status().expires_at, end);
    clock.advance(secs(100));
    assert!(cache.try_token().is_none());
}

/// A server that slips into `expires_in: 0` while a token is still good.
#[tokio::test]
async fn c15_a_token_over_on_arrival_does_not_displace_one_that_is_good() {
    let (clock, idp, cache) = Idp::with_cache();
    assert_eq!(secret(&cache).await, "token-1");
    idp.lifetime(Duration::ZERO);
    pass(&clock, secs(3_000)).await;
    for second in 3_000..3_590 {
        assert_eq!(at_once(&cache).unwrap(), "token-1", "after {second} s");
        pass(&clock, secs(1)).await;
    }
    // In the safety margin a caller waits for a fetch, and goes on with what is good.
    for second in 3_590..3_600 {
        assert_eq!(secret(&cache).await, "token-1", "after {second} s");
        pass(&clock, secs(1)).await;
    }
    // And it is no fetch a second either.
    assert!((2..30).contains(&idp.fetches()), "{}", idp.fetches());
    assert_ne!(secret(&cache).await, "token-1");
}
