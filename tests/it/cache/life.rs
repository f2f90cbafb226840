//! The life of a cached token: fetched, used, refreshed, expired.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    AccessToken, BoxError, Clock, ConfigError, Error, FetchReason, KeepFresh, OAuthError,
    StaticToken, TokenCache, TokenCacheBuilder, TokenRequest, TokenResponse, TokenResponseBuilder,
    TokenSource, TokenStatus, source_fn, testing::ManualClock,
};

use crate::support::tokens::{Answer, Idp, at_once, call, millis, must_wait, secret, secs};

#[tokio::test]
async fn first_caller_fetches_and_the_next_uses_the_cached_token() {
    let (_, idp, cache) = Idp::with_cache();
    assert_eq!(secret(&cache).await, "token-1");
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    assert_eq!(idp.fetches(), 1);
    assert_eq!(idp.log()[0].reason, FetchReason::First);
}

#[tokio::test]
async fn clones_share_one_state() {
    let (_, idp, cache) = Idp::with_cache();
    let clone = cache.clone();
    assert_eq!(secret(&cache).await, "token-1");
    assert_eq!(at_once(&clone).unwrap(), "token-1");
    clone.refresh().await.unwrap();
    assert_eq!(at_once(&cache).unwrap(), "token-2");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn c11_p34_two_caches_never_mix_tokens() {
    let clock = ManualClock::new();
    let (idps, caches): (Vec<_>, Vec<_>) = ["scope-a", "scope-b"]
        .map(|prefix| {
            let idp = Idp::new(&clock);
            idp.prefix(prefix);
            idp.lifetime(secs(60));
            let cache = idp.cache();
            (idp, cache)
        })
        .into_iter()
        .unzip();
    for round in 1..4 {
        let both = [call(&caches[0]), call(&caches[1])];
        for (waiter, prefix) in both.into_iter().zip(["scope-a", "scope-b"]) {
            let token = waiter.await.unwrap().unwrap();
            assert_eq!(token.expose_secret(), format!("{prefix}-{round}"));
        }
        clock.advance(secs(60));
    }
    assert_eq!((idps[0].fetches(), idps[1].fetches()), (3, 3));
}

#[tokio::test]
async fn token_in_the_refresh_window_is_refreshed_in_the_background() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    // Before the refresh window, which is at most 900 s long.
    clock.advance(secs(2_699));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    // Inside it: it is at least 675 s long.
    clock.advance(secs(226));
    idp.hold();
    for _ in 0..100 {
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        clock.settle().await;
    }
    assert_eq!(idp.fetches(), 2);
    assert_eq!(idp.log()[1].reason, FetchReason::ExpiresSoon);
    assert_eq!(idp.log()[1].previous.as_deref(), Some("token-1"));
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-2");
}

#[tokio::test]
async fn c6_caller_in_the_safety_margin_waits_at_most_a_second() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.advance(secs(3_590));
    idp.hold();
    let waiter = call(&cache);
    clock.settle().await;
    assert_eq!(idp.log()[1].reason, FetchReason::Expired);
    clock.advance(millis(999));
    clock.settle().await;
    assert!(!waiter.is_finished());
    clock.advance(millis(1));
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-1");
    // The flight has used its second: later callers do not wait for it.
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.advance(secs(9) - Duration::from_nanos(1));
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.advance(Duration::from_nanos(1));
    assert!(must_wait(&cache), "it has expired");
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn caller_in_the_safety_margin_gets_the_new_token_if_it_arrives_in_time() {
    let (clock, idp, cache) = Idp::with_cache();
    secret(&cache).await;
    clock.advance(secs(3_590));
    idp.hold();
    let waiter = call(&cache);
    clock.settle().await;
    clock.advance(millis(500));
    idp.release();
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "token-2");
}

#[tokio::test]
async fn prefetch_starts_one_flight_and_returns_at_once() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    cache.prefetch();
    cache.prefetch();
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    idp.release();
    clock.settle().await;
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    cache.prefetch();
    clock.settle().await;
    assert_eq!(idp.fetches(), 1, "no refresh is due");
}

#[tokio::test]
async fn try_token_never_waits_and_starts_a_due_refresh() {
    let (clock, idp, cache) = Idp::with_cache();
    assert!(cache.try_token().is_none());
    clock.settle().await;
    assert_eq!(idp.fetches(), 1);
    assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    clock.advance(secs(3_595));
    idp.hold();
    assert_eq!(cache.try_token().unwrap().expose_secret(), "token-1");
    clock.settle().await;
    assert_eq!(idp.fetches(), 2);
    clock.advance(secs(5));
    assert!(cache.try_token().is_none());
}

#[tokio::test]
async fn configured_safety_margin_applies() {
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    let cache = idp.builder().safety_margin(secs(100)).build();
    secret(&cache).await;
    idp.hold();
    clock.advance(secs(3_500) - Duration::from_nanos(1));
    assert!(!must_wait(&cache));
    clock.settle().await;
    idp.release();
    clock.settle().await;
    clock.advance(secs(3_500));
    assert!(must_wait(&cache));
}

#[tokio::test]
async fn status_reports_token_flight_and_error() {
    let (clock, idp, cache) = Idp::with_cache();
    let status = cache.status();
    assert!(!status.ready && !status.fetching);
    assert!(status.expires_at.is_none() && status.last_error.is_none());

    idp.hold();
    let waiter = call(&cache);
    clock.settle().await;
    assert!(cache.status().fetching && !cache.status().ready);
    idp.release();
    let token = waiter.await.unwrap().unwrap();
    let status = cache.status();
    assert!(status.ready && !status.fetching);
    assert_eq!(status.expires_at, token.expires_at());
    assert_eq!(status.retry_after, None);

    idp.answer(Answer::Fail);
    idp.release();
    cache.refresh().await.unwrap_err();
    let status = cache.status();
    assert!(status.ready, "the cached token is valid");
    assert!(status.last_error.is_some());
    assert_eq!(status.retry_after, Some(secs(1)));
    clock.advance(millis(400));
    assert_eq!(cache.status().retry_after, Some(millis(600)));

    idp.answer(Answer::NewToken);
    idp.release();
    cache.refresh().await.unwrap();
    assert!(cache.status().last_error.is_none());
    clock.advance(secs(3_600));
    assert!(!cache.status().ready);
}

#[tokio::test]
async fn p55_debug_shows_no_secret() {
    let clock = ManualClock::new();
    let kept = Arc::new(Mutex::new(None));
    let source = {
        let kept = Arc::clone(&kept);
        source_fn(move |request: TokenRequest| {
            let shown = format!("{request:?}");
            let response = TokenResponse::builder("s3cr3t-access")
                .refresh_token("s3cr3t-refresh")
                .expires_in(secs(60))
                .build();
            *kept.lock().unwrap() = Some(format!("{shown} {response:?}"));
            std::future::ready(response)
        })
    };
    let cache = TokenCache::builder(source).clock(clock.clone());
    let mut shown = format!("{cache:?}");
    let cache = cache.build();
    let token = cache.token().await.unwrap();
    cache.reject(&token);
    clock.settle().await;
    let guard = cache.keep_fresh();
    let builder = TokenResponse::builder("s3cr3t-access").refresh_token("s3cr3t-refresh");
    shown += &format!("{cache:?} {token:?} {:?}", cache.status());
    shown += &format!("{guard:?} {builder:?} {clock:?}");
    shown += &format!("{:?}", token.header_value());
    shown += &format!("{:?}", StaticToken::new("s3cr3t-static"));
    shown += kept.lock().unwrap().as_deref().unwrap();
    let refused = TokenResponse::builder("s3cr3t access").build().unwrap_err();
    shown += &format!("{refused} {refused:?}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(token.header_value().is_sensitive());
}

#[test]
fn public_types_are_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send>(_: &T) {}

    shared::<AccessToken>();
    shared::<BoxError>();
    shared::<Clock>();
    shared::<ConfigError>();
    shared::<Error>();
    shared::<KeepFresh>();
    shared::<ManualClock>();
    shared::<OAuthError>();
    shared::<StaticToken>();
    shared::<TokenCache>();
    shared::<TokenCacheBuilder>();
    shared::<TokenRequest>();
    shared::<TokenResponse>();
    shared::<TokenResponseBuilder>();
    shared::<TokenStatus>();
    let cache = TokenCache::new(StaticToken::new("token"));
    sent(&cache.token());
    sent(&cache.refresh());
    sent(&StaticToken::new("token").fetch(TokenRequest::new()));
}
