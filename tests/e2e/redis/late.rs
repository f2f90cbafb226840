//! What gets lost between a process and Redis, or comes late.

use std::time::Duration;

use bearer_auth::{
    TokenRequest, TokenSource as _,
    redis::{SharedRedis, SharedSource, TokenKey},
    store::StoreOperation::{Lock, Save},
    store::TokenStore as _,
    testing::{ManualClock, MockIdp},
};

use super::{
    Outage, Redis, key, lease, leases_are_free, patient, process, secret,
    session::{Fleet, load},
    shared, store, told_process,
};
use crate::{
    harness::tests,
    programs::redis::{PATIENCE, proxy::Proxy, until},
    support::tokens::Idp,
};

tests! {
    needs: [Redis];
    a_lease_that_nobody_knows_of_is_given_back,
    so_it_is_when_the_answer_does_not_come_in_time,
    so_it_is_when_nobody_waits_for_the_answer,
    so_it_is_with_sessions,
    what_is_written_late_does_not_outlive_the_token,
    what_cannot_be_written_keeps_nobody_waiting,
    what_came_for_a_refresh_token_is_written_when_redis_is_back,
}

/// Longer than a test waits for its end.
const LONG: Duration = Duration::from_secs(600);

/// As Redis does from the second process on, so that each step is one question. There is nothing else.
async fn know_the_scripts(redis: &Redis, idp: &MockIdp) {
    secret(&process(idp, store(redis))).await;
    leases_are_free(redis).await;
    redis.ask::<()>(&["FLUSHALL"]).await;
}

/// Redis does it, and nobody hears of it.
async fn take_unheard(redis: &Redis, proxy: &Proxy) {
    until("it asks", async || proxy.holds()).await;
    proxy.forget_connections();
    proxy.let_on();
    until("it is taken", async || lease(redis).await.is_some()).await;
}

/// The connection is closed before the answer comes, both times.
async fn a_lease_that_nobody_knows_of_is_given_back() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, patient(proxy.client()).lease(LONG));
    secret(&one).await;
    leases_are_free(&redis).await;
    proxy.lose_answers([false, true, true]);
    one.refresh().await.unwrap();
    assert!(proxy.has_lost_them());
    assert_eq!(*told.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;
    // The next does not wait.
    let (other, told) = told_process(&idp, store(&redis));
    secret(&other).await;
    let token = other.refresh().await.unwrap();
    assert_eq!(*told.lock().unwrap(), []);
    let third = process(&idp, store(&redis));
    assert_eq!(secret(&third).await, token.expose_secret());
}

/// Nothing comes.
async fn so_it_is_when_the_answer_does_not_come_in_time() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let impatient = SharedRedis::sealed(proxy.client(), key()).timeout(Duration::from_secs(2));
    let (one, told) = told_process(&idp, impatient.lease(LONG));
    secret(&one).await;
    leases_are_free(&redis).await;
    proxy.hold_after(1);
    let asks = tokio::spawn(async move { one.refresh().await.unwrap() });
    take_unheard(&redis, &proxy).await;
    asks.await.unwrap();
    assert_eq!(*told.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;
}

/// Whoever waits for it goes.
async fn so_it_is_when_nobody_waits_for_the_answer() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    know_the_scripts(&redis, &idp).await;
    let shared = shared(&idp, patient(proxy.client()).lease(LONG));
    proxy.hold_after(1);
    let fetch = tokio::spawn(async move { shared.fetch(TokenRequest::new()).await });
    take_unheard(&redis, &proxy).await;
    fetch.abort();
    assert!(fetch.await.is_err());
    leases_are_free(&redis).await;
    assert_eq!(idp.token_requests(), 1);
}

async fn so_it_is_with_sessions() {
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
    assert_eq!(*process.told.lock().unwrap(), [Lock]);
    leases_are_free(&redis).await;

    proxy.hold_after(0);
    let locks = tokio::spawn(async move { place.lock().await.map(|_| ()) });
    take_unheard(&redis, &proxy).await;
    locks.abort();
    assert!(locks.await.is_err());
    leases_are_free(&redis).await;
    assert_eq!(secret(&other.cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// Three seconds are all that a token lives.
const SHORT: Duration = Duration::from_secs(3);

/// Whatever happens to it on its way.
async fn what_is_written_late_does_not_outlive_the_token() {
    let redis = Redis::start().await;
    know_the_scripts(&redis, &MockIdp::start().await.unwrap()).await;
    let proxy = Proxy::start(&redis).await;
    let store = patient(proxy.client());
    let source = Idp::new(&ManualClock::new());
    source.lifetime(SHORT);
    let shared = SharedSource::new(source, store, TokenKey::named("short"));
    proxy.hold_after(2);
    let fetch = tokio::spawn(async move { shared.fetch(TokenRequest::new()).await });
    until("it writes", async || proxy.holds()).await;
    // Our clocks are coarse.
    let end = redis.time().await + SHORT + Duration::from_millis(100);
    until("the token has ended", async || redis.time().await > end).await;
    assert!(lease(&redis).await.is_some());
    proxy.let_on();
    fetch.await.unwrap().unwrap();
    leases_are_free(&redis).await;
    assert_eq!(redis.keys().await, [""; 0]);
}

async fn what_cannot_be_written_keeps_nobody_waiting() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let store_of_one = patient(proxy.client()).timeout(LONG).lease(LONG);
    let (one, told) = told_process(&idp, store_of_one);
    secret(&one).await;
    leases_are_free(&redis).await;
    // It looks, takes the lease, and writes twice in vain; what gives the lease back is on its way.
    proxy.lose_answers([false, false, true, true]);
    proxy.hold_after(4);
    let refresh = tokio::time::timeout(PATIENCE, one.refresh());
    refresh.await.unwrap().unwrap();
    assert_eq!(*told.lock().unwrap(), [Save]);
    until("it gives the lease back", async || proxy.holds()).await;
    assert!(lease(&redis).await.is_some());
    proxy.let_on();
    leases_are_free(&redis).await;
    let (other, told) = told_process(&idp, store(&redis));
    secret(&other).await;
    other.refresh().await.unwrap();
    assert_eq!(*told.lock().unwrap(), []);
}

/// How Redis goes away for a moment.
#[derive(Clone, Copy, Debug)]
enum Away {
    Network(Outage),
    IsKilled,
}

/// Nobody else has it: it is tried again, and again.
async fn what_came_for_a_refresh_token_is_written_when_redis_is_back() {
    use Outage::{Closed, Nonsense, Paused, Stopped};
    let aways = [Closed, Nonsense, Paused, Stopped].map(Away::Network);
    for away in aways.into_iter().chain([Away::IsKilled]) {
        let mut redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let fleet = Fleet::signed_in(&redis).await;
        // What shows by silence alone is tried again after that.
        let at_proxy = SharedRedis::sealed(proxy.client(), key()).timeout(Duration::from_secs(2));
        let process = fleet.process_at(&at_proxy);
        let old = secret(&process.cache).await;
        let (hold, task) = fleet.renews(&process).await;
        match away {
            Away::Network(outage) => outage.begin(&redis, &proxy).await,
            Away::IsKilled => redis.kill(),
        }
        let before = proxy.connections();
        hold.release();
        // Whoever has no answer makes a new connection, which nobody may answer either.
        let tries = match away {
            Away::Network(outage) if outage.is_silence() => 1,
            _ => 2,
        };
        until("it has been tried in vain", async || {
            proxy.connections() >= before + tries
        })
        .await;
        match away {
            Away::Network(outage) => outage.end(&redis, &proxy).await,
            Away::IsKilled => redis.run_again().await,
        }
        let token = task.await.unwrap().unwrap();
        assert_ne!(token, old);
        until("it is written", async || {
            load(fleet.place(&store(&redis))).await.as_deref() == Some("refresh-2")
        })
        .await;
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token, "{away:?}");
        fleet.end_tokens();
        secret(&other.cache).await;
        assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"], "{away:?}");
    }
}
