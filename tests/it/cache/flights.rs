//! Single flight: callers share one token request, its result, and its failure.

use std::{
    pin::{Pin, pin},
    task::Poll,
};

use bearer_auth::{Error, ErrorKind, FetchReason, TokenCache, testing::ManualClock};

use crate::support::tokens::{
    Answer, Idp, at_once, call, calls, millis, must_wait, poll_once, secret, secs,
};

#[tokio::test]
async fn p54_c11_ten_thousand_callers_share_one_flight() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    let waiters = calls(&cache, 10_000);
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    idp.release();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    }
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p54_callers_on_many_threads_share_one_flight() {
    let (_, idp, cache) = Idp::with_cache();
    for waiter in calls(&cache, 1_000) {
        assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    }
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn two_thousand_requests_a_second_never_wait_for_a_refresh() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(10));
    idp.hold();
    let start = clock.system_time();
    let mut answered = 0;
    let mut waited = 0;
    let mut first = Some(call(&cache));
    for _ in 0..50_000 * 2 {
        clock.advance(millis(1) / 2);
        // The token endpoint takes 50 ms.
        let unanswered = idp.log().into_iter().nth(answered);
        if unanswered.is_some_and(|fetch| clock.system_time() >= fetch.at + millis(50)) {
            idp.release();
            answered += 1;
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if first.as_ref().is_some_and(|first| first.is_finished()) {
            first.take().unwrap().await.unwrap().unwrap();
        }
        if first.is_none() {
            match poll_once(pin!(cache.token())) {
                Poll::Ready(token) => {
                    let end = token.unwrap().expires_at().unwrap();
                    assert!(end > clock.system_time(), "an expired token");
                }
                Poll::Pending => waited += 1,
            }
        }
    }
    assert!(first.is_none() && clock.system_time() >= start + secs(50));
    assert_eq!(waited, 0);
    // Five lifetimes, each refreshed 1.9 to 2.5 s before expiry.
    assert!((6..=7).contains(&idp.fetches()), "{}", idp.fetches());
}

#[tokio::test]
async fn p54_c16_flight_continues_without_its_callers() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    let waiters = calls(&cache, 10);
    clock.settle().await;
    for waiter in &waiters {
        waiter.abort();
    }
    clock.settle().await;
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn c16_dropped_caller_leaves_the_flight_to_the_others() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    let mut first = Box::pin(cache.token());
    assert!(poll_once(first.as_mut()).is_pending());
    let second = call(&cache);
    clock.settle().await;
    drop(first);
    clock.settle().await;
    idp.release();
    assert_eq!(second.await.unwrap().unwrap().expose_secret(), "token-1");
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn p54_flight_survives_the_last_handle_of_its_cache() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    cache.prefetch();
    drop(cache);
    clock.settle().await;
    assert_eq!((idp.fetches(), idp.issued()), (1, 0));
    idp.release();
    clock.settle().await;
    assert_eq!(idp.issued(), 1, "the flight was not cancelled");
}

#[tokio::test]
async fn c14_p54_waiters_share_one_failure() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    idp.answer(Answer::Fail);
    let waiters = calls(&cache, 100);
    clock.settle().await;
    idp.release();
    for waiter in waiters {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.is_retryable());
        assert_eq!(error.retry_after(), Some(secs(1)));
    }
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn explicit_refresh_joins_the_flight() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    let waiter = call(&cache);
    clock.settle().await;
    let mut refreshes: Vec<Pin<Box<_>>> = (0..10).map(|_| Box::pin(cache.refresh())).collect();
    for refresh in &mut refreshes {
        assert!(poll_once(refresh.as_mut()).is_pending());
    }
    idp.release();
    for refresh in refreshes {
        assert_eq!(refresh.await.unwrap().expose_secret(), "token-1");
    }
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn explicit_refresh_replaces_a_fresh_token() {
    let (_, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    for n in 2..5 {
        let token = cache.refresh().await.unwrap();
        assert_eq!(token.expose_secret(), format!("token-{n}"));
        assert_eq!(at_once(&cache).unwrap(), format!("token-{n}"));
    }
    assert_eq!(idp.log()[1].reason, FetchReason::Manual);
    assert_eq!(idp.log()[1].previous.as_deref(), Some("token-1"));
}

#[tokio::test]
async fn explicit_refresh_ignores_the_backoff() {
    let (_, idp, cache) = Idp::with_cache();
    for answer in [Answer::Fail, Answer::FailPermanently] {
        idp.answer(answer);
        cache.refresh().await.unwrap_err();
        cache.refresh().await.unwrap_err();
    }
    assert_eq!(idp.fetches(), 4);
    at_once(&cache).unwrap_err();
    idp.answer(Answer::NewToken);
    cache.refresh().await.unwrap();
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    assert_eq!(idp.fetches(), 5);
}

#[tokio::test]
async fn explicit_refresh_ignores_the_minimum_interval() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(0));
    secret(&cache).await;
    let waiter = call(&cache);
    clock.settle().await;
    assert_eq!(idp.fetches(), 1, "the minimum interval is a second");
    let token = cache.refresh().await.unwrap();
    assert_eq!(token.expose_secret(), "token-2");
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn failed_explicit_refresh_keeps_the_cached_token() {
    let (_, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    idp.answer(Answer::FailPermanently);
    let error = cache.refresh().await.unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(at_once(&cache).unwrap(), "token-1");
}

#[tokio::test]
async fn silent_source_times_out_after_thirty_seconds() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Silence);
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(millis(29_999));
    clock.settle().await;
    assert!(!waiter.is_finished());
    clock.advance(millis(1));
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable() && error.retry_after().is_some());
    assert!(!cache.status().fetching);
    idp.answer(Answer::NewToken);
    clock.advance(secs(1));
    assert_eq!(secret(&cache).await, "token-1");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn configured_fetch_timeout_applies() {
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    let cache = idp.builder().fetch_timeout(secs(5)).build();
    idp.answer(Answer::Silence);
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(secs(5));
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn panicking_source_is_a_retryable_error() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Panic);
    for waiter in calls(&cache, 10) {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert!(error.is_retryable());
        assert_eq!(error.retry_after(), Some(secs(1)));
    }
    assert_eq!(idp.fetches(), 1);
    // A caller at once gets the same error …
    let error = at_once(&cache).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(error.retry_after(), Some(secs(1)));
    assert_eq!(idp.fetches(), 1);
    // … and after the backoff a new token.
    idp.answer(Answer::NewToken);
    clock.advance(secs(1));
    assert_eq!(secret(&cache).await, "token-1");
}

#[tokio::test]
async fn c15_panicking_source_keeps_the_cached_token() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    idp.answer(Answer::Panic);
    clock.advance(secs(3_595));
    assert_eq!(secret(&cache).await, "token-1");
    idp.answer(Answer::NewToken);
    clock.advance(secs(1));
    assert_eq!(secret(&cache).await, "token-2");
}

#[tokio::test]
async fn flight_continues_after_its_waiter_used_the_cached_token() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.advance(secs(3_595));
    idp.hold();
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(secs(1));
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn caller_after_expiry_joins_the_flight_that_began_before() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.advance(secs(3_590));
    idp.hold();
    cache.prefetch();
    clock.settle().await;
    clock.advance(secs(10));
    let waiter = call(&cache);
    clock.settle().await;
    assert!(!waiter.is_finished());
    idp.release();
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn c12_token_clears_the_failure_and_the_backoff() {
    let (clock, idp, cache): (ManualClock, Idp, TokenCache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    let first: Error = cache.token().await.unwrap_err();
    assert_eq!(first.kind(), ErrorKind::Source);
    idp.answer(Answer::NewToken);
    clock.advance(secs(1));
    assert!(must_wait(&cache));
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    // The count of failures in a row starts again at one.
    idp.answer(Answer::Fail);
    let again = cache.refresh().await.unwrap_err();
    assert_eq!(again.retry_after(), Some(secs(1)));
}
