//! Failing authorization servers: what callers get, and how often the cache retries.

use std::{pin::pin, task::Poll};

use bearer_auth::{
    ClientCredentials, ErrorKind, TokenCache,
    testing::{self, ManualClock, MockIdp},
};

use crate::support::tokens::{Answer, Idp, at_once, call, millis, pass, poll_once, secret, secs};

#[tokio::test]
async fn p57_cached_token_serves_during_an_outage() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    // Inside the refresh window, whatever its jitter.
    clock.advance(secs(2_930));
    idp.answer(Answer::Fail);
    for _ in 0..60_000 / 20 {
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        clock.settle().await;
        clock.advance(millis(20));
    }
    let retries = idp.fetches() - 1;
    assert!((4..=7).contains(&retries), "{retries}");
    idp.answer(Answer::NewToken);
    for _ in 0..60 {
        clock.advance(secs(1));
        at_once(&cache).unwrap();
        clock.settle().await;
    }
    assert_eq!(at_once(&cache).unwrap(), "token-2");
}

#[tokio::test]
async fn p57_c15_failed_refresh_in_the_safety_margin_serves_the_token_until_it_expires() {
    for answer in [Answer::Fail, Answer::FailPermanently] {
        let (clock, idp, cache) = Idp::with_cache();
        secret(&cache).await;
        clock.advance(secs(3_590));
        idp.answer(answer);
        for _ in 0..100 {
            assert_eq!(secret(&cache).await, "token-1");
            clock.advance(millis(100) - std::time::Duration::from_nanos(1));
            assert_eq!(secret(&cache).await, "token-1");
            clock.advance(std::time::Duration::from_nanos(1));
        }
        cache.token().await.unwrap_err();
    }
}

#[tokio::test]
async fn c14_outage_without_a_token_makes_at_most_seven_token_requests_in_a_minute() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    let mut errors = 0;
    for _ in 0..60_000 / 20 {
        let mut caller = pin!(cache.token());
        let result = match poll_once(caller.as_mut()) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                // The caller started a token request, and gets its failure.
                clock.settle().await;
                let Poll::Ready(result) = poll_once(caller) else {
                    panic!("a caller hangs")
                };
                result
            }
        };
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let wait = error.retry_after().unwrap();
        assert!(wait > secs(0) && wait <= secs(60), "{wait:?}");
        errors += 1;
        clock.advance(millis(20));
    }
    assert_eq!(errors, 3_000);
    assert!((5..=7).contains(&idp.fetches()), "{}", idp.fetches());
    assert!(idp.pauses().iter().all(|pause| *pause >= secs(1)));
}

#[tokio::test]
async fn backoff_doubles_up_to_a_minute_and_is_reported() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    for full in [1, 2, 4, 8, 16, 32, 60, 60] {
        let error = cache.token().await.unwrap_err();
        let pause = error.retry_after().unwrap();
        let least = secs(1).max(secs(full) / 2);
        assert!(pause >= least && pause <= secs(full), "{full}: {pause:?}");
        // Until then callers get the error at once, without a token request.
        let fetches = idp.fetches();
        clock.advance(pause / 2);
        let error = at_once(&cache).unwrap_err();
        assert_eq!(error.retry_after(), Some(pause - pause / 2));
        clock.advance(pause - pause / 2 - std::time::Duration::from_nanos(1));
        at_once(&cache).unwrap_err();
        assert_eq!(idp.fetches(), fetches);
        clock.advance(std::time::Duration::from_nanos(1));
    }
}

#[tokio::test]
async fn permanent_error_is_kept_for_five_minutes() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::FailPermanently);
    let error = cache.token().await.unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(error.retry_after(), Some(secs(300)));
    idp.answer(Answer::NewToken);
    clock.advance(millis(299_999));
    let error = at_once(&cache).unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(error.retry_after(), Some(millis(1)));
    assert_eq!(idp.fetches(), 1);
    clock.advance(millis(1));
    assert_eq!(secret(&cache).await, "token-1");
}

#[tokio::test]
async fn p51_error_of_a_source_makes_one_attempt() {
    let (_, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    call(&cache).await.unwrap().unwrap_err();
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn backoff_counts_suspended_time_and_ignores_a_clock_set_back() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::FailPermanently);
    cache.token().await.unwrap_err();
    clock.suspend(secs(300));
    cache.token().await.unwrap_err();
    assert_eq!(idp.fetches(), 2);
    clock.set_back(secs(86_400));
    clock.advance(secs(300));
    cache.token().await.unwrap_err();
    assert_eq!(idp.fetches(), 3);
}

#[tokio::test]
async fn first_token_after_an_outage_clears_the_error() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    for _ in 0..300 {
        let _ = poll_once(pin!(cache.token()));
        pass(&clock, millis(100)).await;
    }
    idp.answer(Answer::NewToken);
    for _ in 0..320 {
        let _ = poll_once(pin!(cache.token()));
        pass(&clock, millis(100)).await;
    }
    let status = cache.status();
    assert!(status.ready && status.last_error.is_none());
    assert_eq!(at_once(&cache).unwrap(), "token-1");
}

#[tokio::test]
async fn p55_error_shows_its_cause_and_no_token() {
    let (_, idp, cache) = Idp::with_cache();
    idp.prefix("s3cr3t");
    secret(&cache).await;
    idp.answer(Answer::Fail);
    let error = cache.refresh().await.unwrap_err();
    let shown = format!("{error} {error:?} {:?} {cache:?}", cache.status());
    assert!(shown.contains("the next attempt is in 1 s"), "{shown}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "the server is down");
}

#[tokio::test]
async fn auto_advance_ends_the_pauses_of_an_outage() {
    let clock = ManualClock::new().auto_advance();
    let start = clock.system_time();
    let idp = MockIdp::builder()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .build()
        .unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();

    // Two pauses between three attempts.
    idp.always(testing::Answer::status(503));
    let error = cache.token().await.unwrap_err();
    assert_eq!(idp.token_requests(), 3);
    // The longest `Retry-After` that a caller waits for.
    clock.advance(error.retry_after().unwrap());
    idp.recover();
    idp.then(testing::Answer::unavailable(3));
    secret(&cache).await;
    assert_eq!(idp.token_requests(), 5);
    // The minimum time between two token requests, and a slow server.
    cache.forget();
    idp.then(testing::Answer::ok().delay(secs(5)));
    secret(&cache).await;
    assert_eq!(idp.token_requests(), 6);

    // The refresh in the background has not advanced the clock.
    let passed = clock.system_time().duration_since(start).unwrap();
    assert!(passed >= secs(9) && passed < secs(60), "{passed:?}");
}
