//! Tokens that the API rejects: which token is replaced, how often, and what callers get meanwhile.

use bearer_auth::{AccessToken, FetchReason, TokenCache, testing::ManualClock};

use crate::support::tokens::{
    Answer, Idp, at_once, call, calls, millis, must_wait, pass, secret, secs,
};

/// A cache with `token-1`, and that token.
async fn with_token() -> (ManualClock, Idp, TokenCache, AccessToken) {
    let (clock, idp, cache) = Idp::with_cache();
    let token = cache.token().await.unwrap();
    (clock, idp, cache, token)
}

#[tokio::test]
async fn c13_rejected_token_is_replaced() {
    let (clock, idp, cache, first) = with_token().await;
    cache.reject(&first);
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    let fetch = &idp.log()[1];
    assert_eq!(fetch.reason, FetchReason::Rejected);
    assert_eq!(fetch.rejected.as_deref(), Some("token-1"));
    assert_eq!(fetch.previous.as_deref(), Some("token-1"));
}

#[tokio::test]
async fn late_401_about_an_old_token_leaves_the_newer_one_alone() {
    let (clock, idp, cache, first) = with_token().await;
    cache.refresh().await.unwrap();
    idp.hold();
    cache.reject(&first);
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
    // A late 401 does not count: the rejection of `token-2` is the first, and needs no interval.
    clock.advance(millis(999));
    let second = cache.token().await.unwrap();
    cache.reject(&second);
    clock.settle().await;
    assert_eq!(idp.fetches(), 3);
    assert!(must_wait(&cache), "callers wait for its replacement");
}

#[tokio::test]
async fn p66_many_rejections_of_one_token_make_one_token_request() {
    let (clock, idp, cache, first) = with_token().await;
    idp.hold();
    for _ in 0..25 {
        cache.reject(&first);
    }
    clock.settle().await;
    for _ in 0..25 {
        cache.reject(&first);
    }
    idp.release();
    clock.settle().await;
    // Some rejections come after the next token.
    for _ in 0..25 {
        cache.reject(&first);
    }
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p66_rejected_token_is_compared_by_value() {
    let (clock, idp, cache, _) = with_token().await;
    let other = Idp::new(&clock).cache();
    let same_value = other.token().await.unwrap();
    cache.reject(&same_value);
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn rejection_without_a_cached_token_does_nothing() {
    let (clock, idp, cache) = Idp::with_cache();
    let foreign = Idp::new(&clock).cache().token().await.unwrap();
    cache.reject(&foreign);
    clock.settle().await;
    assert_eq!(idp.fetches(), 0);
}

#[tokio::test]
async fn callers_wait_at_most_a_second_for_the_replacement_of_a_rejected_token() {
    let (clock, idp, cache, first) = with_token().await;
    idp.hold();
    cache.reject(&first);
    let waits = call(&cache);
    clock.settle().await;
    assert!(!waits.is_finished());
    assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    clock.advance(millis(600));
    let later = call(&cache);
    clock.settle().await;
    clock.advance(millis(400));
    for waiter in [waits, later] {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    }
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
}

#[tokio::test]
async fn callers_after_a_rejection_wait_for_the_next_token() {
    let (clock, idp, cache, first) = with_token().await;
    idp.hold();
    cache.reject(&first);
    let waiters = calls(&cache, 50);
    clock.settle().await;
    idp.release();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    }
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn c15_rejected_token_serves_again_when_its_replacement_fails() {
    for answer in [Answer::Fail, Answer::FailPermanently, Answer::Panic] {
        let (clock, idp, cache, first) = with_token().await;
        idp.hold();
        idp.answer(answer);
        cache.reject(&first);
        let waiter = call(&cache);
        clock.settle().await;
        idp.release();
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        // Further rejections respect the backoff.
        cache.reject(&first);
        clock.settle().await;
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        assert_eq!(idp.fetches(), 2);
    }
}

#[tokio::test]
async fn rejection_ends_with_its_flight_and_a_later_flight_blocks_no_caller() {
    for answer in [Answer::SameToken, Answer::NewToken, Answer::Fail] {
        let (clock, idp, cache, first) = with_token().await;
        idp.answer(answer);
        cache.reject(&first);
        clock.settle().await;
        assert_eq!(idp.fetches(), 2);
        clock.advance(secs(2_930));
        idp.hold();
        at_once(&cache).unwrap();
        clock.settle().await;
        assert_eq!(idp.fetches(), 3);
        at_once(&cache).unwrap();
    }
}

#[tokio::test]
async fn c23_rejected_token_serves_again_when_the_server_returns_it_again() {
    let (clock, idp, cache, first) = with_token().await;
    idp.answer(Answer::SameToken);
    cache.reject(&first);
    let waiter = call(&cache);
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    for _ in 0..100 {
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        cache.reject(&first);
        clock.settle().await;
    }
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn c13_route_that_always_answers_401_makes_a_bounded_number_of_token_requests() {
    let (clock, idp, cache, _) = with_token().await;
    let start = clock.system_time();
    clock.advance(secs(10));
    // Ten requests a second, for ten minutes, all rejected.
    for _ in 0..6_000 {
        let token = cache.token().await.unwrap();
        cache.reject(&token);
        clock.settle().await;
        clock.advance(millis(100));
    }
    let starts: Vec<_> = idp
        .log()
        .into_iter()
        .skip(1)
        .map(|fetch| fetch.at.duration_since(start).unwrap().as_secs() - 10)
        .collect();
    let expected = [
        0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543,
    ];
    assert_eq!(starts, expected);
}

#[tokio::test]
async fn rejection_within_the_minimum_interval_blocks_no_caller() {
    let (clock, idp, cache, first) = with_token().await;
    cache.reject(&first);
    clock.settle().await;
    let second = cache.token().await.unwrap();
    clock.advance(millis(999));
    cache.reject(&second);
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    clock.advance(millis(1));
    cache.reject(&second);
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-3");
}

#[tokio::test]
async fn second_rejection_in_a_row_blocks_no_caller() {
    let (clock, idp, cache, first) = with_token().await;
    cache.reject(&first);
    clock.settle().await;
    clock.advance(secs(1));
    idp.hold();
    cache.reject(&cache.token().await.unwrap());
    clock.settle().await;
    assert_eq!(idp.fetches(), 3);
    assert_eq!(at_once(&cache).unwrap(), "token-2");
}

#[tokio::test]
async fn five_minutes_without_a_rejection_reset_the_interval() {
    for (quiet, is_reset) in [(secs(300), true), (millis(299_999), false)] {
        let (clock, idp, cache, _) = with_token().await;
        for _ in 0..5 {
            cache.reject(&cache.token().await.unwrap());
            clock.settle().await;
            clock.advance(secs(60));
        }
        assert_eq!(idp.fetches(), 6);
        clock.advance(quiet - secs(60));
        cache.reject(&cache.token().await.unwrap());
        clock.settle().await;
        assert_eq!(idp.fetches(), 7);
        // The next is allowed after one second again, or only after 32.
        clock.advance(secs(1));
        cache.reject(&cache.token().await.unwrap());
        clock.settle().await;
        assert_eq!(idp.fetches(), if is_reset { 8 } else { 7 });
    }
}

#[tokio::test]
async fn rejection_respects_the_backoff_of_a_failure() {
    let (clock, idp, cache, first) = with_token().await;
    idp.answer(Answer::FailPermanently);
    cache.refresh().await.unwrap_err();
    clock.advance(millis(299_999));
    cache.reject(&first);
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    clock.advance(millis(1));
    cache.reject(&first);
    clock.settle().await;
    assert_eq!(idp.fetches(), 3);
}

#[tokio::test]
async fn rejection_joins_the_flight() {
    let (clock, idp, cache, first) = with_token().await;
    clock.advance(secs(2_999));
    idp.hold();
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    cache.reject(&first);
    assert!(must_wait(&cache), "callers wait for the replacement");
    clock.settle().await;
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p43_rejections_of_tokens_expired_on_arrival_make_few_token_requests() {
    // Each token is expired on arrival, and so the API rejects it.
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(0));
    let start = clock.system_time();
    let mut callers = Vec::new();
    for distance in 0..20 {
        let cache = cache.clone();
        callers.push(tokio::spawn(async move {
            loop {
                let token = cache.token().await.unwrap();
                // The time to the API and back differs by caller.
                for _ in 0..10 * distance {
                    tokio::task::yield_now().await;
                }
                cache.reject(&token);
            }
        }));
    }
    for _ in 0..600 {
        pass(&clock, millis(100)).await;
    }
    for caller in callers {
        caller.abort();
    }
    let seconds = clock.system_time().duration_since(start).unwrap().as_secs();
    assert_eq!(seconds, 60);
    // One a second, and those after rejections.
    assert!(idp.fetches() <= 60 + 8, "{}", idp.fetches());
}

#[tokio::test]
async fn rejection_of_a_token_expired_on_arrival_skips_the_interval_once() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(0));
    let token = cache.token().await.unwrap();
    let waiter = call(&cache);
    clock.settle().await;
    assert_eq!(idp.fetches(), 1, "the minimum interval is a second");
    cache.reject(&token);
    clock.settle().await;
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn rejected_token_expires_while_the_machine_is_suspended() {
    let (clock, idp, cache, first) = with_token().await;
    idp.hold();
    cache.reject(&first);
    clock.settle().await;
    clock.suspend(secs(7_200));
    assert!(cache.try_token().is_none());
    idp.release();
    assert_eq!(secret(&cache).await, "token-2");
    // Its request began before the suspend, so it has expired, too: it serves only its waiters.
    assert!(cache.try_token().is_none());
}
