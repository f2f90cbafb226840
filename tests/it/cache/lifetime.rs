//! Lifetimes and expiry of tokens, with odd values from servers and with clock changes.

use std::time::Duration;

use bearer_auth::{TokenCache, TokenResponse, source_fn, testing::ManualClock};

use crate::support::tokens::{
    Answer, Idp, at_once, call, calls, millis, must_wait, pass, secret, secs,
};

#[tokio::test]
async fn p40_lifetime_starts_when_the_token_request_is_sent() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    idp.lifetime(secs(20));
    let requested_at = clock.system_time();
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(secs(10));
    idp.release();
    let token = waiter.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(requested_at + secs(20)));
    clock.advance(secs(10) - Duration::from_nanos(1));
    assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    clock.advance(Duration::from_nanos(1));
    assert!(cache.try_token().is_none());
}

#[tokio::test]
async fn p40_source_can_set_the_age_or_the_expiry() {
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
async fn p41_token_without_expiry_serves_until_it_is_rejected() {
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
async fn p41_default_lifetime_applies_only_to_tokens_without_expiry() {
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
async fn p42_huge_lifetime_does_not_overflow() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(Duration::MAX);
    let token = cache.token().await.unwrap();
    assert!(token.expires_at().unwrap() > clock.system_time() + secs(50 * 365 * 86_400));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
}

#[tokio::test]
async fn p43_token_expired_on_arrival_serves_its_waiters_only() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(Duration::ZERO);
    let waiters = calls(&cache, 100);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    }
    assert_eq!(idp.fetches(), 1);
    assert!(cache.try_token().is_none(), "it has expired");
    assert!(!cache.status().ready);
    // Later callers wait for the next token request, a second after the last.
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
async fn p43_lifetime_of_zero_or_one_second_limits_token_requests_to_one_per_second() {
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
        // The requests span ten seconds.
        assert!((9..=12).contains(&idp.fetches()), "{}", idp.fetches());
        assert!(idp.pauses().iter().all(|pause| *pause >= secs(1)));
    }
}

#[tokio::test]
async fn token_expires_while_the_machine_is_suspended() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.suspend(secs(7_200));
    assert!(cache.try_token().is_none());
    assert!(!cache.status().ready);
    assert_eq!(secret(&cache).await, "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn clock_set_back_does_not_extend_a_token() {
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
async fn c23_same_token_again_is_refreshed_after_a_quarter_of_its_remaining_lifetime() {
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
    let starts: Vec<_> = idp
        .log()
        .into_iter()
        .skip(1)
        .map(|fetch| fetch.at.duration_since(start).unwrap())
        .collect();
    assert!(
        starts[0] >= secs(75) && starts[0] < millis(81_400),
        "{starts:?}"
    );
    for pair in starts.windows(2) {
        let remaining = secs(100) - pair[0];
        let pause = pair[1] - pair[0];
        let least = secs(1).max(remaining / 4);
        assert!(pause >= least && pause < least + millis(200), "{starts:?}");
    }
    assert!(starts.len() > 5, "{starts:?}");
}

#[tokio::test]
async fn c23_same_token_again_keeps_its_safety_margin() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    secret(&cache).await;
    clock.advance(secs(85));
    idp.answer(Answer::SameToken);
    idp.lifetime(secs(15));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    // The safety margin stays 10 s, not 1.5 s: a caller waits.
    clock.advance(secs(6));
    idp.hold();
    assert!(must_wait(&cache));
}

#[tokio::test]
async fn same_token_with_a_later_expiry_is_extended() {
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
async fn same_token_without_expiry_keeps_its_expiry() {
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

/// A server that starts to send `expires_in: 0` while the cached token is valid.
#[tokio::test]
async fn c15_token_expired_on_arrival_does_not_replace_a_valid_one() {
    let (clock, idp, cache) = Idp::with_cache();
    assert_eq!(secret(&cache).await, "token-1");
    idp.lifetime(Duration::ZERO);
    pass(&clock, secs(3_000)).await;
    for second in 3_000..3_590 {
        assert_eq!(at_once(&cache).unwrap(), "token-1", "after {second} s");
        pass(&clock, secs(1)).await;
    }
    // In the safety margin a caller waits for a token request, then uses the cached token.
    for second in 3_590..3_600 {
        assert_eq!(secret(&cache).await, "token-1", "after {second} s");
        pass(&clock, secs(1)).await;
    }
    // That is far below one token request a second.
    assert!((2..30).contains(&idp.fetches()), "{}", idp.fetches());
    assert_ne!(secret(&cache).await, "token-1");
}
