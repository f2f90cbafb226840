//! Redis fails: for access tokens it is as if it was not there.

use std::{sync::Arc, time::Duration};

use bearer_auth::{
    ClientCredentials, TokenCache,
    redis::{SharedRedis, SharedSource},
    store::StoreOperation::{Load, Lock, Save},
    testing::{ManualClock, MockIdp},
};

use super::{
    Outage, Redis, Tempered, Told, key, patient, process, secret, source, store, telling,
    told_process,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    without_redis_everybody_has_a_token_and_with_it_again_they_share_one,
    a_connection_that_nobody_answers_is_used_once_and_not_again,
    a_connection_that_is_closed_is_made_anew,
    down_while_somebody_waits,
    data_that_is_lost_is_fetched_once,
    a_replica_serves_what_it_has_and_shares_when_it_is_promoted,
    what_is_older_than_one_s_own_is_replaced,
    down_from_the_beginning,
    down_while_the_token_is_good_is_noticed_by_nobody,
    up_again_it_is_used_again_without_its_data,
    silent_it_is_waited_for_half_a_second,
    full_it_takes_no_token_and_everybody_has_one,
    garbage_in_the_key_is_overwritten,
    a_key_of_another_type_is_nobody_s_outage,
    slow_is_not_down_for_the_patient,
    a_token_that_is_due_serves_while_redis_is_silent,
    an_answer_that_is_lost_costs_nothing,
}

/// A process, how it waits, and what it is told.
fn tempered(
    idp: &MockIdp,
    store: &SharedRedis,
) -> (
    TokenCache,
    Tempered<Arc<SharedSource<ClientCredentials>>>,
    Told,
) {
    let told = Told::default();
    let of = |store| Arc::new(telling(idp, store, &told));
    let tempered = Tempered::new(store, of);
    (TokenCache::new(tempered.clone()), tempered, told)
}

async fn without_redis_everybody_has_a_token_and_with_it_again_they_share_one() {
    for outage in Outage::ALL {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let idp = MockIdp::start().await.unwrap();
        let lease = Duration::from_secs(2);
        let store = SharedRedis::sealed(proxy.client(), key()).lease(lease);
        let (one, tempered, told) = tempered(&idp, &store);
        let token = secret(&one).await;
        outage.begin(&redis, &proxy).await;
        tempered.notices(outage);
        // Who has a token notices nothing.
        let before = proxy.connections();
        assert_eq!(secret(&one).await, token, "{outage:?}");
        assert_eq!(
            (told.lock().unwrap().len(), proxy.connections()),
            (0, before)
        );
        // Who needs one gets one, after one thing that did not work.
        let alone = one.refresh().await.unwrap();
        assert_ne!(alone.expose_secret(), token, "{outage:?}");
        assert_eq!(told.lock().unwrap().len(), 1, "{outage:?}");
        assert_eq!(idp.token_requests(), 2, "{outage:?}");
        // Who has just started takes what can be read.
        let (late, late_tempered, told) = self::tempered(&idp, &store);
        late_tempered.notices(outage);
        let reads = matches!(outage, Outage::Full | Outage::ReadOnly | Outage::Forbidden);
        assert_eq!(secret(&late).await == token, reads, "{outage:?}");
        assert_eq!(told.lock().unwrap().is_empty(), reads, "{outage:?}");

        outage.end(&redis, &proxy).await;
        tempered.calms_down();
        let (other, told) = told_process(&idp, patient(redis.client()));
        until("they share", async || {
            let renewed = one.refresh().await.unwrap();
            let shared = other.refresh().await.unwrap();
            // Each would renew what the other has just renewed.
            renewed.expose_secret() == shared.expose_secret()
                || one.refresh().await.unwrap().expose_secret() == shared.expose_secret()
        })
        .await;
        assert!(told.lock().unwrap().is_empty(), "{outage:?}");
    }
}

/// A machine that has lost its power tells nobody. Another has its name.
async fn a_connection_that_nobody_answers_is_used_once_and_not_again() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let store = SharedRedis::sealed(proxy.client(), key());
    let (one, tempered, told) = tempered(&idp, &store);
    secret(&one).await;
    assert_eq!(proxy.connections(), 1);
    proxy.forget_connections();
    tempered.notices(Outage::Silent);
    one.refresh().await.unwrap();
    tempered.calms_down();
    assert_eq!(*told.lock().unwrap(), [Load]);
    let shared = one.refresh().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [Load]);
    assert_eq!(proxy.connections(), 2);
    let other = process(&idp, super::store(&redis));
    assert_eq!(secret(&other).await, shared.expose_secret());
}

/// As a firewall does with those that are idle for long: it is noticed at once.
async fn a_connection_that_is_closed_is_made_anew() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, store(&redis));
    secret(&one).await;
    redis
        .ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal"])
        .await;
    let token = one.refresh().await.unwrap();
    assert!(told.lock().unwrap().is_empty());
    let other = process(&idp, store(&redis));
    assert_eq!(secret(&other).await, token.expose_secret());
}

/// While it waits for what another process fetches.
async fn down_while_somebody_waits() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let processes = [(); 2].map(|()| told_process(&idp, store(&redis)));
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
    let told = processes.map(|(_, told)| told.lock().unwrap().clone());
    assert!(told.contains(&vec![Save]), "{told:?}");
    assert_eq!(idp.token_requests(), 2);
}

async fn data_that_is_lost_is_fetched_once() {
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

async fn a_replica_serves_what_it_has_and_shares_when_it_is_promoted() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    let idp = MockIdp::start().await.unwrap();
    let token = secret(&process(&idp, store(&master))).await;
    let port = master.port().to_string();
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
    until("the replica has it", async || {
        !replica.keys().await.is_empty()
    })
    .await;
    let (one, told) = told_process(&idp, store(&replica));
    assert_eq!(secret(&one).await, token);
    assert!(told.lock().unwrap().is_empty());
    one.refresh().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [Lock]);
    drop(master);
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    let shared = one.refresh().await.unwrap();
    let other = process(&idp, store(&replica));
    assert_eq!(secret(&other).await, shared.expose_secret());
    assert_eq!(*told.lock().unwrap(), [Lock]);
}

/// Fetched alone, while the other was all that Redis had.
async fn what_is_older_than_one_s_own_is_replaced() {
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

async fn down_from_the_beginning() {
    let idp = MockIdp::start().await.unwrap();
    // Nobody listens there.
    let client = redis::Client::open("redis://127.0.0.1:1/").unwrap();
    let (process, told) = told_process(&idp, SharedRedis::sealed(client, key()));
    secret(&process).await;
    assert_eq!(idp.token_requests(), 1);
    assert_eq!(*told.lock().unwrap(), [Load]);
}

async fn down_while_the_token_is_good_is_noticed_by_nobody() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (process, told) = told_process(&idp, store(&redis));
    let token = secret(&process).await;
    redis.kill();
    assert_eq!(secret(&process).await, token);
    assert_eq!(idp.token_requests(), 1);
    assert!(told.lock().unwrap().is_empty());
}

async fn up_again_it_is_used_again_without_its_data() {
    let mut redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, store(&redis));
    secret(&one).await;
    redis.kill();
    let alone = one.refresh().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [Load]);
    redis.run_again().await;
    let shared = one.refresh().await.unwrap();
    assert_ne!(shared.expose_secret(), alone.expose_secret());
    assert_eq!(idp.token_requests(), 3);
    assert_eq!(*told.lock().unwrap(), [Load]);
    assert_eq!(
        secret(&process(&idp, store(&redis))).await,
        shared.expose_secret()
    );
    assert_eq!(idp.token_requests(), 3);
}

async fn silent_it_is_waited_for_half_a_second() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (process, told) = told_process(&idp, SharedRedis::sealed(redis.client(), key()));
    secret(&process).await;
    redis.stop();
    process.refresh().await.unwrap();
    redis.go_on();
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*told.lock().unwrap(), [Load]);
}

async fn full_it_takes_no_token_and_everybody_has_one() {
    let redis = Redis::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let idp = MockIdp::start().await.unwrap();
    let (process, told) = told_process(&idp, store(&redis));
    secret(&process).await;
    assert_eq!(idp.token_requests(), 1);
    let told = told.lock().unwrap().clone();
    assert!(matches!(told[..], [Lock] | [Save]), "{told:?}");
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
    let (other, told) = told_process(&idp, store(&redis));
    let token = secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*told.lock().unwrap(), [Load]);
    assert_eq!(secret(&process(&idp, store(&redis))).await, token);
}

async fn a_key_of_another_type_is_nobody_s_outage() {
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
    let (other, told) = told_process(&idp, store(&redis));
    secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
    assert_eq!(*told.lock().unwrap(), [Load]);
}

/// The limit is the store's own, and not that of the crate `redis`, which is half a second.
async fn slow_is_not_down_for_the_patient() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, store(&redis));
    secret(&one).await;
    redis.ask::<()>(&["CLIENT", "PAUSE", "1000", "WRITE"]).await;
    let token = one.refresh().await.unwrap();
    assert!(told.lock().unwrap().is_empty());
    let other = process(&idp, store(&redis));
    assert_eq!(secret(&other).await, token.expose_secret());
}

/// No request waits for Redis while there is a token.
async fn a_token_that_is_due_serves_while_redis_is_silent() {
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
    until("it has a new one", async || secret(&cache).await != token).await;
    assert_eq!(idp.token_requests(), 2);
    redis.go_on();
}

async fn an_answer_that_is_lost_costs_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, patient(proxy.client()));
    let other = process(&idp, store(&redis));
    secret(&one).await;
    secret(&other).await;
    // To look, to take the lease, to write, to give it back.
    for step in 0..4 {
        proxy.lose_answers((0..=step).map(|at| at == step));
        let token = one.refresh().await.unwrap();
        until("it was lost", async || proxy.has_lost_them()).await;
        assert_eq!(
            other.refresh().await.unwrap().expose_secret(),
            token.expose_secret()
        );
        assert_eq!(idp.token_requests(), 2 + step);
    }
    assert!(told.lock().unwrap().is_empty());
}
