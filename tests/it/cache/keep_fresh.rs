//! `keep_fresh`: refreshes without callers.

use crate::support::tokens::{Answer, Idp, pass, secret, secs};

#[tokio::test]
async fn keep_fresh_refreshes_without_callers() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(60));
    let _guard = cache.keep_fresh();
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    for _ in 0..600 {
        assert!(cache.status().ready);
        pass(&clock, secs(1)).await;
    }
    // Refreshed 11.25 to 15 s before each expiry.
    assert!((12..=14).contains(&idp.fetches()), "{}", idp.fetches());
}

#[tokio::test]
async fn no_refresh_without_callers_or_keep_fresh() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    pass(&clock, secs(7_200)).await;
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn keep_fresh_stops_with_its_last_guard() {
    let (clock, idp, cache) = Idp::with_cache();
    let first = cache.keep_fresh();
    let second = cache.keep_fresh();
    pass(&clock, secs(1)).await;
    drop(first);
    pass(&clock, secs(3_600)).await;
    let fetches = idp.fetches();
    assert!(fetches >= 2, "the second guard still refreshes");
    assert!(cache.status().ready);
    drop(second);
    pass(&clock, secs(7_200)).await;
    assert_eq!(idp.fetches(), fetches);
    assert_eq!(clock.next_wakeup(), None, "no timer is left");
    let _third = cache.keep_fresh();
    pass(&clock, secs(1)).await;
    assert_eq!(idp.fetches(), fetches + 1, "a new guard starts it again");
}

#[tokio::test]
async fn keep_fresh_refreshes_soon_after_a_suspend() {
    let (clock, idp, cache) = Idp::with_cache();
    let _guard = cache.keep_fresh();
    pass(&clock, secs(10)).await;
    clock.suspend(secs(7_200));
    assert!(!cache.status().ready);
    pass(&clock, secs(30)).await;
    assert!(cache.status().ready);
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn keep_fresh_continues_after_failures_with_backoff() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Fail);
    let _guard = cache.keep_fresh();
    pass(&clock, secs(59)).await;
    assert!((5..=7).contains(&idp.fetches()), "{}", idp.fetches());
    idp.answer(Answer::NewToken);
    pass(&clock, secs(61)).await;
    assert!(cache.status().ready);
}

#[tokio::test]
async fn c23_keep_fresh_with_the_same_token_again_is_no_busy_loop() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(100));
    let _guard = cache.keep_fresh();
    pass(&clock, secs(1)).await;
    idp.answer(Answer::SameToken);
    let end = cache.status().expires_at.unwrap();
    for _ in 0..98 {
        idp.lifetime(end.duration_since(clock.system_time()).unwrap());
        pass(&clock, secs(1)).await;
    }
    assert!((5..=20).contains(&idp.fetches()), "{}", idp.fetches());
    assert!(idp.pauses().iter().all(|pause| *pause >= secs(1)));
}

#[test]
fn keep_fresh_outside_a_runtime_starts_with_the_first_token_request() {
    let (clock, idp, cache) = Idp::with_cache();
    let _guard = cache.keep_fresh();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        pass(&clock, secs(10)).await;
        assert_eq!(idp.fetches(), 0);
        secret(&cache).await;
        pass(&clock, secs(3_600)).await;
        assert_eq!(idp.fetches(), 2);
        assert!(cache.status().ready);
    });
}

#[test]
fn keep_fresh_restarts_on_another_runtime_after_a_shutdown() {
    let (clock, idp, cache) = Idp::with_cache();
    let runtime = || {
        let builder = tokio::runtime::Builder::new_current_thread().build();
        builder.unwrap()
    };
    let first = runtime();
    let _guard = first.block_on(async {
        let guard = cache.keep_fresh();
        pass(&clock, secs(1)).await;
        guard
    });
    drop(first);
    clock.advance(secs(3_600));
    runtime().block_on(async {
        assert_eq!(secret(&cache).await, "token-2");
        pass(&clock, secs(3_600)).await;
        assert_eq!(idp.fetches(), 3);
    });
}
