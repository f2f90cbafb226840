//! Redis fails: each process sends token requests of its own, as without Redis.

use std::{sync::Arc, time::Duration};

use bearer_auth::{
    ClientCredentials, TokenCache,
    redis::{SharedRedis, SharedSource},
    store::StoreOperation::{Load, Lock, Save},
    testing::{ManualClock, MockIdp},
};

use super::{
    Outage, Redis, StoreErrors, SwitchedTimeout, key, patient, process, reporting_process,
    reporting_source, secret, source, store,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    processes_fetch_alone_during_an_outage_and_share_after_it,
    unanswered_connection_is_replaced_after_one_timeout,
    closed_connection_is_reopened_without_an_error,
    redis_killed_while_a_process_waits_causes_a_token_request,
    lost_data_costs_one_token_request,
    replica_serves_reads_and_shares_after_promotion,
    shared_token_older_than_the_cached_one_is_replaced,
    unreachable_redis_at_startup_causes_a_token_request,
    cached_token_serves_during_an_outage,
    restarted_redis_without_data_is_used_again,
    silent_redis_costs_one_default_timeout,
    full_redis_causes_a_token_request,
    garbage_in_the_key_is_overwritten,
    key_of_another_type_causes_a_token_request,
    slow_redis_within_the_timeout_is_no_outage,
    token_in_the_refresh_window_serves_while_redis_is_silent,
    lost_redis_reply_is_retried_without_an_error,
}

/// A process, the switch of its timeout, and its store errors.
fn process_with_switch(
    idp: &MockIdp,
    store: &SharedRedis,
) -> (
    TokenCache,
    SwitchedTimeout<Arc<SharedSource<ClientCredentials>>>,
    StoreErrors,
) {
    let store_errors = StoreErrors::default();
    let of = |store| Arc::new(reporting_source(idp, store, &store_errors));
    let switch = SwitchedTimeout::new(store, of);
    (TokenCache::new(switch.clone()), switch, store_errors)
}

async fn processes_fetch_alone_during_an_outage_and_share_after_it() {
    for outage in Outage::ALL {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let idp = MockIdp::start().await.unwrap();
        let lease = Duration::from_secs(2);
        let store = SharedRedis::sealed(proxy.client(), key()).lease(lease);
        let (one, switch, store_errors) = process_with_switch(&idp, &store);
        let token = secret(&one).await;
        outage.begin(&redis, &proxy).await;
        switch.outage_begins(outage);
        // A cached token needs no Redis.
        let before = proxy.connections();
        assert_eq!(secret(&one).await, token, "{outage:?}");
        assert_eq!(
            (store_errors.lock().unwrap().len(), proxy.connections()),
            (0, before)
        );
        // A refresh succeeds after one failed Redis operation.
        let alone = one.refresh().await.unwrap();
        assert_ne!(alone.expose_secret(), token, "{outage:?}");
        assert_eq!(store_errors.lock().unwrap().len(), 1, "{outage:?}");
        assert_eq!(idp.token_requests(), 2, "{outage:?}");
        // A new process uses the shared token where Redis can be read.
        let (late, late_switch, store_errors) = process_with_switch(&idp, &store);
        late_switch.outage_begins(outage);
        let reads = matches!(outage, Outage::Full | Outage::ReadOnly | Outage::Forbidden);
        assert_eq!(secret(&late).await == token, reads, "{outage:?}");
        assert_eq!(store_errors.lock().unwrap().is_empty(), reads, "{outage:?}");

        outage.end(&redis, &proxy).await;
        switch.outage_ends();
        let (other, store_errors) = reporting_process(&idp, patient(redis.client()));
        until("they share", async || {
            let renewed = one.refresh().await.unwrap();
            let shared = other.refresh().await.unwrap();
            // The two may refresh in turns, each one the other's token.
            renewed.expose_secret() == shared.expose_secret()
                || one.refresh().await.unwrap().expose_secret() == shared.expose_secret()
        })
        .await;
        assert!(store_errors.lock().unwrap().is_empty(), "{outage:?}");
    }
}

/// As after a power failure: the connection is not closed, and another machine answers at the address.
async fn unanswered_connection_is_replaced_after_one_timeout() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let store = SharedRedis::sealed(proxy.client(), key());
    let (one, switch, store_errors) = process_with_switch(&idp, &store);
    secret(&one).await;
    assert_eq!(proxy.connections(), 1);
    proxy.forget_connections();
    switch.outage_begins(Outage::Silent);
    one.refresh().await.unwrap();
    switch.outage_ends();
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    let shared = one.refresh().await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    assert_eq!(proxy.connections(), 2);
    let other = process(&idp, super::store(&redis));
    assert_eq!(secret(&other).await, shared.expose_secret());
}

/// A firewall closes idle connections. The process notices that at once.
async fn closed_connection_is_reopened_without_an_error() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, store(&redis));
    secret(&one).await;
    redis
        .ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal"])
        .await;
    let token = one.refresh().await.unwrap();
    assert!(store_errors.lock().unwrap().is_empty());
    let other = process(&idp, store(&redis));
    assert_eq!(secret(&other).await, token.expose_secret());
}

/// The process waits for a token request of another process.
async fn redis_killed_while_a_process_waits_causes_a_token_request() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let processes = [(); 2].map(|()| reporting_process(&idp, store(&redis)));
    let tasks = processes.each_ref().map(|(process, _)| {
        let process = process.clone();
        tokio::spawn(async move { secret(&process).await })
    });
    idp.token_requests_reach(1).await;
    until("one waits", async || redis.scripts_run().await >= 2 + 2 + 4).await;
    redis.kill();
    idp.token_requests_reach(2).await;
    hold.release();
    for task in tasks {
        task.await.unwrap();
    }
    let store_errors = processes.map(|(_, store_errors)| store_errors.lock().unwrap().clone());
    assert!(store_errors.contains(&vec![Save]), "{store_errors:?}");
    assert_eq!(idp.token_requests(), 2);
}

async fn lost_data_costs_one_token_request() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let old = secret(&process(&idp, store(&redis))).await;
    redis.ask::<()>(&["FLUSHALL"]).await;
    redis.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    let token = secret(&process(&idp, store(&redis))).await;
    assert_ne!(token, old);
    assert_eq!(secret(&process(&idp, store(&redis))).await, token);
    assert_eq!(idp.token_requests(), 2);
}

async fn replica_serves_reads_and_shares_after_promotion() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    let idp = MockIdp::start().await.unwrap();
    let token = secret(&process(&idp, store(&master))).await;
    let port = master.port().to_string();
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
    until("the replica has it", async || {
        !replica.keys().await.is_empty()
    })
    .await;
    let (one, store_errors) = reporting_process(&idp, store(&replica));
    assert_eq!(secret(&one).await, token);
    assert!(store_errors.lock().unwrap().is_empty());
    one.refresh().await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), [Lock]);
    drop(master);
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    let shared = one.refresh().await.unwrap();
    let other = process(&idp, store(&replica));
    assert_eq!(secret(&other).await, shared.expose_secret());
    assert_eq!(*store_errors.lock().unwrap(), [Lock]);
}

/// The newer token was fetched during an outage and is not in Redis.
async fn shared_token_older_than_the_cached_one_is_replaced() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let one = process(&idp, patient(proxy.client()));
    let old = secret(&one).await;
    Outage::Closed.begin(&redis, &proxy).await;
    idp.set_lifetime(Duration::from_secs(7200));
    one.refresh().await.unwrap();
    Outage::Closed.end(&redis, &proxy).await;
    let new = one.refresh().await.unwrap();
    assert_ne!(new.expose_secret(), old);
    assert_eq!(idp.token_requests(), 3);
    let other = process(&idp, store(&redis));
    assert_eq!(secret(&other).await, new.expose_secret());
}

async fn unreachable_redis_at_startup_causes_a_token_request() {
    let idp = MockIdp::start().await.unwrap();
    // No server listens there.
    let client = redis::Client::open("redis://127.0.0.1:1/").unwrap();
    let (process, store_errors) = reporting_process(&idp, SharedRedis::sealed(client, key()));
    secret(&process).await;
    assert_eq!(idp.token_requests(), 1);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
}

async fn cached_token_serves_during_an_outage() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (process, store_errors) = reporting_process(&idp, store(&redis));
    let token = secret(&process).await;
    redis.kill();
    assert_eq!(secret(&process).await, token);
    assert_eq!(idp.token_requests(), 1);
    assert!(store_errors.lock().unwrap().is_empty());
}

async fn restarted_redis_without_data_is_used_again() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, store(&redis));
    secret(&one).await;
    redis.kill();
    let alone = one.refresh().await.unwrap();
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    redis.run_again().await;
    let shared = one.refresh().await.unwrap();
    assert_ne!(shared.expose_secret(), alone.expose_secret());
    assert_eq!(idp.token_requests(), 3);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    assert_eq!(
        secret(&process(&idp, store(&redis))).await,
        shared.expose_secret()
    );
    assert_eq!(idp.token_requests(), 3);
}

async fn silent_redis_costs_one_default_timeout() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (process, store_errors) =
        reporting_process(&idp, SharedRedis::sealed(redis.client(), key()));
    secret(&process).await;
    redis.stop();
    process.refresh().await.unwrap();
    redis.go_on();
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
}

async fn full_redis_causes_a_token_request() {
    let redis = Redis::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let idp = MockIdp::start().await.unwrap();
    let (process, store_errors) = reporting_process(&idp, store(&redis));
    secret(&process).await;
    assert_eq!(idp.token_requests(), 1);
    let store_errors = store_errors.lock().unwrap().clone();
    assert!(
        matches!(store_errors[..], [Lock] | [Save]),
        "{store_errors:?}"
    );
}

async fn garbage_in_the_key_is_overwritten() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    secret(&process(&idp, store(&redis))).await;
    let keys = redis.keys().await;
    let mut connection = redis.connect().await;
    let _: i64 = redis::cmd("HSET")
        .arg(&keys[0])
        .arg("v")
        .arg("garbage")
        .query_async(&mut connection)
        .await
        .unwrap();
    let (other, store_errors) = reporting_process(&idp, store(&redis));
    let token = secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    assert_eq!(secret(&process(&idp, store(&redis))).await, token);
}

async fn key_of_another_type_causes_a_token_request() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    secret(&process(&idp, store(&redis))).await;
    let keys = redis.keys().await;
    let mut connection = redis.connect().await;
    let _: () = redis::cmd("SET")
        .arg(&keys[0])
        .arg("text")
        .query_async(&mut connection)
        .await
        .unwrap();
    let (other, store_errors) = reporting_process(&idp, store(&redis));
    secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
}

/// The store's own timeout counts. The crate `redis` has one of half a second.
async fn slow_redis_within_the_timeout_is_no_outage() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, store(&redis));
    secret(&one).await;
    redis.ask::<()>(&["CLIENT", "PAUSE", "1000", "WRITE"]).await;
    let token = one.refresh().await.unwrap();
    assert!(store_errors.lock().unwrap().is_empty());
    let other = process(&idp, store(&redis));
    assert_eq!(secret(&other).await, token.expose_secret());
}

/// No request waits for Redis while the cached token is valid.
async fn token_in_the_refresh_window_serves_while_redis_is_silent() {
    let redis = Redis::start().await;
    let clock = ManualClock::new();
    let idp = MockIdp::builder().clock(clock.clone());
    let idp = idp
        .client("client-id", "client-secret")
        .start()
        .await
        .unwrap();
    let source = source(&idp);
    let key = source.token_key();
    let store = SharedRedis::sealed(redis.client(), super::key());
    let shared = SharedSource::new(source, store, key);
    let cache = TokenCache::builder(shared).clock(clock.clone()).build();
    let token = secret(&cache).await;
    redis.stop();
    clock.advance(Duration::from_secs(58 * 60));
    for _ in 0..100 {
        assert_eq!(secret(&cache).await, token);
    }
    until("the cache has a new token", async || {
        secret(&cache).await != token
    })
    .await;
    assert_eq!(idp.token_requests(), 2);
    redis.go_on();
}

async fn lost_redis_reply_is_retried_without_an_error() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, patient(proxy.client()));
    let other = process(&idp, store(&redis));
    secret(&one).await;
    secret(&other).await;
    // Read, take the lease, write, release the lease.
    for step in 0..4 {
        proxy.lose_answers((0..=step).map(|at| at == step));
        let token = one.refresh().await.unwrap();
        until("the reply was lost", async || proxy.has_lost_answers()).await;
        assert_eq!(
            other.refresh().await.unwrap().expose_secret(),
            token.expose_secret()
        );
        assert_eq!(idp.token_requests(), 2 + step);
    }
    assert!(store_errors.lock().unwrap().is_empty());
}
