//! Replies of Redis that are lost, and writes that arrive late.

use std::time::Duration;

use bearer_auth::{
    TokenRequest, TokenSource as _,
    redis::{SharedRedis, SharedSource, TokenKey},
    store::StoreOperation::{Lock, Save},
    store::TokenStore as _,
    testing::{ManualClock, MockIdp},
};

use super::{
    Outage, Redis, key, lease, leases_are_free, patient, process, reporting_process, secret,
    session::{Fleet, load},
    shared, store,
};
use crate::{
    harness::tests,
    programs::redis::{PATIENCE, proxy::Proxy, until},
    support::tokens::Idp,
};

tests! {
    needs: [Redis];
    lease_taken_without_a_reply_is_released,
    lease_taken_after_a_timeout_is_released,
    lease_taken_for_a_dropped_fetch_is_released,
    session_lease_taken_without_a_reply_is_released,
    token_written_late_leaves_redis_when_it_expires,
    failed_write_does_not_delay_the_caller,
    refreshed_session_is_saved_when_redis_is_back,
}

/// Longer than a test waits, so that only a release can end the lease.
const LONG: Duration = Duration::from_secs(600);

/// Loads the scripts into Redis, so that each step is one command, and leaves it empty.
async fn load_scripts(redis: &Redis, idp: &MockIdp) {
    secret(&process(idp, store(redis))).await;
    leases_are_free(redis).await;
    redis.ask::<()>(&["FLUSHALL"]).await;
}

/// Lets Redis grant the lease, and drops its reply.
async fn grant_without_reply(redis: &Redis, proxy: &Proxy) {
    until("the request for the lease is held", async || {
        proxy.is_holding()
    })
    .await;
    proxy.forget_connections();
    proxy.release();
    until("the lease is taken", async || lease(redis).await.is_some()).await;
}

/// The connection is closed before the reply, in both tries.
async fn lease_taken_without_a_reply_is_released() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, patient(proxy.client()).lease(LONG));
    secret(&one).await;
    leases_are_free(&redis).await;
    proxy.lose_answers([false, true, true]);
    one.refresh().await.unwrap();
    assert!(proxy.has_lost_answers());
    assert_eq!(*store_errors.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;
    // The next process does not wait.
    let (other, store_errors) = reporting_process(&idp, store(&redis));
    secret(&other).await;
    let token = other.refresh().await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), []);
    let third = process(&idp, store(&redis));
    assert_eq!(secret(&third).await, token.expose_secret());
}

/// No reply, and the connection stays open.
async fn lease_taken_after_a_timeout_is_released() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let short_timeout = SharedRedis::sealed(proxy.client(), key()).timeout(Duration::from_secs(2));
    let (one, store_errors) = reporting_process(&idp, short_timeout.lease(LONG));
    secret(&one).await;
    leases_are_free(&redis).await;
    proxy.hold_after(1);
    let refresh = tokio::spawn(async move { one.refresh().await.unwrap() });
    grant_without_reply(&redis, &proxy).await;
    refresh.await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;
}

/// The caller drops its fetch before the reply.
async fn lease_taken_for_a_dropped_fetch_is_released() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    load_scripts(&redis, &idp).await;
    let shared = shared(&idp, patient(proxy.client()).lease(LONG));
    proxy.hold_after(1);
    let fetch = tokio::spawn(async move { shared.fetch(TokenRequest::new()).await });
    grant_without_reply(&redis, &proxy).await;
    fetch.abort();
    assert!(fetch.await.is_err());
    leases_are_free(&redis).await;
    assert_eq!(idp.token_requests(), 1);
}

async fn session_lease_taken_without_a_reply_is_released() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let fleet = Fleet::signed_in(&redis).await;
    let place = fleet.place(&patient(proxy.client()).lease(LONG));
    let process = fleet.process(place.clone());
    let other = fleet.process_at(&store(&redis));
    for process in [&process, &other] {
        secret(&process.cache).await;
    }
    leases_are_free(&redis).await;
    proxy.lose_answers([true, true]);
    fleet.end_tokens();
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(*process.store_errors.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;

    proxy.hold_after(0);
    let locks = tokio::spawn(async move { place.lock().await.map(|_| ()) });
    grant_without_reply(&redis, &proxy).await;
    locks.abort();
    assert!(locks.await.is_err());
    leases_are_free(&redis).await;
    assert_eq!(secret(&other.cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// The lifetime of the token.
const SHORT: Duration = Duration::from_secs(3);

/// The write reaches Redis when the token has expired.
async fn token_written_late_leaves_redis_when_it_expires() {
    let redis = Redis::start().await;
    load_scripts(&redis, &MockIdp::start().await.unwrap()).await;
    let proxy = Proxy::start(&redis).await;
    let store = patient(proxy.client());
    let source = Idp::new(&ManualClock::new());
    source.lifetime(SHORT);
    let shared = SharedSource::new(source, store, TokenKey::named("short"));
    proxy.hold_after(2);
    let fetch = tokio::spawn(async move { shared.fetch(TokenRequest::new()).await });
    until("the write is held", async || proxy.is_holding()).await;
    // The crate's clocks are coarse.
    let end = redis.time().await + SHORT + Duration::from_millis(100);
    until("the token has expired", async || redis.time().await > end).await;
    assert!(lease(&redis).await.is_some());
    proxy.release();
    fetch.await.unwrap().unwrap();
    leases_are_free(&redis).await;
    assert_eq!(redis.keys().await, [""; 0]);
}

async fn failed_write_does_not_delay_the_caller() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let store_of_one = patient(proxy.client()).timeout(LONG).lease(LONG);
    let (one, store_errors) = reporting_process(&idp, store_of_one);
    secret(&one).await;
    leases_are_free(&redis).await;
    // Read, take the lease, two writes that lose their replies. The release is held.
    proxy.lose_answers([false, false, true, true]);
    proxy.hold_after(4);
    let refresh = tokio::time::timeout(PATIENCE, one.refresh());
    refresh.await.unwrap().unwrap();
    assert_eq!(*store_errors.lock().unwrap(), [Save]);
    until("the release is held", async || proxy.is_holding()).await;
    assert!(lease(&redis).await.is_some());
    proxy.release();
    leases_are_free(&redis).await;
    let (other, store_errors) = reporting_process(&idp, store(&redis));
    secret(&other).await;
    other.refresh().await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), []);
}

/// How Redis fails for a moment.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Outage(Outage),
    Killed,
}

/// Only this process has the new refresh token, so it retries the write until Redis is back.
async fn refreshed_session_is_saved_when_redis_is_back() {
    use Outage::{Closed, Nonsense, Paused, Stopped};
    let outages = [Closed, Nonsense, Paused, Stopped].map(Failure::Outage);
    for failure in outages.into_iter().chain([Failure::Killed]) {
        let mut redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let fleet = Fleet::signed_in(&redis).await;
        // A silent Redis costs one timeout for each try.
        let at_proxy = SharedRedis::sealed(proxy.client(), key()).timeout(Duration::from_secs(2));
        let process = fleet.process_at(&at_proxy);
        let old = secret(&process.cache).await;
        let (hold, task) = fleet.start_refresh(&process).await;
        match failure {
            Failure::Outage(outage) => outage.begin(&redis, &proxy).await,
            Failure::Killed => redis.kill(),
        }
        let before = proxy.connections();
        hold.release();
        // A try without a reply is repeated on a new connection, unless that times out as well.
        let tries = match failure {
            Failure::Outage(outage) if outage.is_silence() => 1,
            _ => 2,
        };
        until("the write has failed", async || {
            proxy.connections() >= before + tries
        })
        .await;
        match failure {
            Failure::Outage(outage) => outage.end(&redis, &proxy).await,
            Failure::Killed => redis.run_again().await,
        }
        let token = task.await.unwrap().unwrap();
        assert_ne!(token, old);
        until("the session is written", async || {
            load(fleet.place(&store(&redis))).await.as_deref() == Some("refresh-2")
        })
        .await;
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token, "{failure:?}");
        fleet.end_tokens();
        secret(&other.cache).await;
        assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"], "{failure:?}");
    }
}
