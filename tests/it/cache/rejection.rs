//! The API refuses a token: which one is replaced, how often, and what serves meanwhile.

use bearer_auth::{AccessToken, FetchReason, TokenCache, testing::ManualClock};

use crate::support::tokens::{
    Answer, Idp, at_once, call, calls, millis, must_wait, pass, secret, secs,
};

/// A cache that holds `token-1`, and that token.
async fn with_token() -> (ManualClock, Idp, TokenCache, AccessToken) {
    let (clock, idp, cache) = Idp::with_cache();
    let token = cache.token().await.unwrap();
    (clock, idp, cache, token)
}

#[tokio::test]
async fn c13_a_rejected_token_is_replaced() {
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
async fn p66_a_late_rejection_leaves_the_newer_token() {
    let (clock, idp, cache, first) = with_token().await;
    cache.refresh().await.unwrap();
    idp.hold();
    cache.reject(&first);
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
    // Nor does it count: the rejection of the second is the first of all.
    clock.advance(millis(999));
    let second = cache.token().await.unwrap();
    cache.reject(&second);
    clock.settle().await;
    assert_eq!(idp.fetches(), 3);
    assert!(must_wait(&cache), "the second is under suspicion");
}

#[tokio::test]
async fn p66_fifty_rejections_of_one_token_are_one_fetch() {
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
    // Some come when the next token is there.
    for _ in 0..25 {
        cache.reject(&first);
    }
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p66_tokens_are_compared_by_value() {
    let (clock, idp, cache, _) = with_token().await;
    let other = Idp::new(&clock).cache();
    let same_value = other.token().await.unwrap();
    cache.reject(&same_value);
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn a_rejection_without_a_token_in_hand_does_nothing() {
    let (clock, idp, cache) = Idp::with_cache();
    let foreign = Idp::new(&clock).cache().token().await.unwrap();
    cache.reject(&foreign);
    clock.settle().await;
    assert_eq!(idp.fetches(), 0);
}

#[tokio::test]
async fn a_rejected_token_rests_while_its_fetch_runs_but_for_a_second_only() {
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
async fn callers_who_wait_out_a_rejection_get_the_next_token() {
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
async fn c15_a_rejected_token_is_used_again_when_its_fetch_fails() {
    for answer in [Answer::Fail, Answer::FailForGood, Answer::Panic] {
        let (clock, idp, cache, first) = with_token().await;
        idp.hold();
        idp.answer(answer);
        cache.reject(&first);
        let waiter = call(&cache);
        clock.settle().await;
        idp.release();
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        // Further rejections keep to the backoff.
        cache.reject(&first);
        clock.settle().await;
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        assert_eq!(idp.fetches(), 2);
    }
}

#[tokio::test]
async fn suspicion_ends_with_its_fetch_and_a_later_one_is_waited_for_by_nobody() {
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
async fn c23_a_rejected_token_is_used_again_when_it_comes_again() {
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
async fn c13_a_route_that_always_refuses_costs_a_bounded_number_of_fetches() {
    let (clock, idp, cache, _) = with_token().await;
    let start = clock.system_time();
    clock.advance(secs(10));
    // Ten requests a second, for ten minutes, all refused.
    for _ in 0..6_000 {
        let token = cache.token().await.unwrap();
        cache.reject(&token);
        clock.settle().await;
        clock.advance(millis(100));
    }
    let asked: Vec<_> = idp
        .log()
        .into_iter()
        .skip(1)
        .map(|fetch| fetch.at.duration_since(start).unwrap().as_secs() - 10)
        .collect();
    let expected = [
        0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543,
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_rejection_that_is_not_allowed_yet_stalls_nobody() {
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
async fn a_token_refused_again_and_again_goes_on_serving_while_its_fetch_runs() {
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
async fn five_quiet_minutes_forgive_and_a_moment_less_does_not() {
    for (quiet, forgiven) in [(secs(300), true), (millis(299_999), false)] {
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
        // The next may come after one second again, or after 32.
        clock.advance(secs(1));
        cache.reject(&cache.token().await.unwrap());
        clock.settle().await;
        assert_eq!(idp.fetches(), if forgiven { 8 } else { 7 });
    }
}

#[tokio::test]
async fn rejections_keep_to_the_backoff_of_failures() {
    let (clock, idp, cache, first) = with_token().await;
    idp.answer(Answer::FailForGood);
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
async fn a_rejection_joins_a_fetch_that_is_under_way() {
    let (clock, idp, cache, first) = with_token().await;
    clock.advance(secs(2_999));
    idp.hold();
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    cache.reject(&first);
    assert!(must_wait(&cache), "it is under suspicion");
    clock.settle().await;
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn p43_rejections_of_tokens_over_on_arrival_are_no_fetch_each() {
    // Each token is over when it comes, and so the API refuses it.
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(0));
    let start = clock.system_time();
    let mut callers = Vec::new();
    for distance in 0..20 {
        let cache = cache.clone();
        callers.push(tokio::spawn(async move {
            loop {
                let token = cache.token().await.unwrap();
                // To the API and back: some take longer than others.
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
    // One a second, and those that rejections cause.
    assert!(idp.fetches() <= 60 + 8, "{}", idp.fetches());
}

#[tokio::test]
async fn a_rejection_of_a_token_over_on_arrival_asks_once_at_once() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(0));
    let token = cache.token().await.unwrap();
    let waiter = call(&cache);
    clock.settle().await;
    assert_eq!(idp.fetches(), 1, "a second apart");
    cache.reject(&token);
    clock.settle().await;
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn after_a_suspend_a_rejected_token_is_not_in_hand_any_more() {
    let (clock, idp, cache, first) = with_token().await;
    idp.hold();
    cache.reject(&first);
    clock.settle().await;
    clock.suspend(secs(7_200));
    assert!(cache.try_token().is_none());
    idp.release();
    assert_eq!(secret(&cache).await, "token-2");
    // It was asked for before the suspend, and so it is over as well: it served its waiters.
    assert!(cache.try_token().is_none());
}
