//! `keep_fresh`: fetches that nobody asked for.

use crate::support::tokens::{Answer, Idp, pass, secret, secs};

#[tokio::test]
async fn renews_with_nobody_calling() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.lifetime(secs(60));
    let _guard = cache.keep_fresh();
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    for _ in 0..600 {
        assert!(cache.status().ready);
        pass(&clock, secs(1)).await;
    }
    // Renewed 11.25 to 15 s before each end.
    assert!((12..=14).contains(&idp.fetches()), "{}", idp.fetches());
}

#[tokio::test]
async fn without_it_nobody_renews() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    pass(&clock, secs(7_200)).await;
    assert_eq!(idp.fetches(), 1);
}

#[tokio::test]
async fn stops_with_its_last_guard() {
    let (clock, idp, cache) = Idp::with_cache();
    let first = cache.keep_fresh();
    let second = cache.keep_fresh();
    pass(&clock, secs(1)).await;
    drop(first);
    pass(&clock, secs(3_600)).await;
    let renewed = idp.fetches();
    assert!(renewed >= 2, "the second guard is there");
    assert!(cache.status().ready);
    drop(second);
    pass(&clock, secs(7_200)).await;
    assert_eq!(idp.fetches(), renewed);
    assert_eq!(clock.next_wakeup(), None, "nothing is left behind");
    let _third = cache.keep_fresh();
    pass(&clock, secs(1)).await;
    assert_eq!(idp.fetches(), renewed + 1, "it can be had again");
}

#[tokio::test]
async fn renews_soon_after_a_suspend() {
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
async fn goes_on_after_failures_with_their_backoff() {
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
async fn c23_the_same_token_again_is_no_busy_loop() {
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
fn made_outside_a_runtime_it_starts_with_the_first_fetch() {
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
fn starts_again_on_another_runtime_when_its_own_is_gone() {
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
