//! Deployments of Redis: a cluster, TLS, sentinels, an account with limited rights.

use std::{collections::HashMap, time::Duration};

use bearer_auth::{
    TokenCache,
    redis::{RedisClient, SharedRedis, SharedSource},
    store::StoreOperation::{Load, Lock},
    testing::MockIdp,
};
use futures_util::future::join_all;

use super::{Redis, key, patient, process, reporting_process, secret, session::Fleet, source};
use crate::{
    harness::tests,
    programs::redis::{cluster::Cluster, sentinel::Watched, tls::Tls, until},
};

tests! {
    needs: [Redis];
    cluster_shares_tokens_and_sessions,
    redis_behind_tls_is_shared_and_an_untrusted_one_counts_as_down,
    sharing_resumes_after_a_sentinel_failover,
    acl_rights_of_the_guide_are_sufficient_and_necessary,
}

async fn cluster_shares_tokens_and_sessions() {
    let mut cluster = Cluster::start().await;
    let rights = [&rights()[..], &["+ping", "+cluster|slots"]].concat();
    for node in &cluster.nodes {
        node.ask::<()>(&rights).await;
    }
    let idp = MockIdp::start().await.unwrap();
    const TENANTS: usize = 12;
    // Each tenant has connections of its own.
    let tenants = || -> Vec<_> {
        let store = patient(cluster.client("fleet", "password"));
        let tenant = |tenant: usize| {
            let source = source(&idp);
            let key = source.token_key().subject(tenant.to_string());
            TokenCache::new(SharedSource::new(source, store.clone(), key))
        };
        (0..TENANTS).map(tenant).collect()
    };
    let (one, other) = (tenants(), tenants());
    let tokens = join_all(one.iter().zip(&other).map(|(one, other)| async {
        let both = futures_util::future::join(secret(one), secret(other)).await;
        assert_eq!(both.0, both.1);
        both.0
    }));
    let tokens = tokens.await;
    assert_eq!(idp.token_requests(), TENANTS);
    for (process, token) in one.iter().zip(&tokens) {
        assert_ne!(process.refresh().await.unwrap().expose_secret(), token);
    }
    assert_eq!(idp.token_requests(), 2 * TENANTS);

    // Each node has some tokens, and the two keys of a token are on the same node.
    until("leases are released", async || {
        cluster.keys().await.iter().sum::<usize>() == TENANTS
    })
    .await;
    let keys = cluster.keys().await;
    assert!(keys.iter().all(|keys| *keys > 0), "{keys:?}");
    for node in &cluster.nodes {
        let data = &node.keys().await[0];
        let lease = format!("{data}:lease");
        let slots =
            [data, &lease].map(|key| ["CLUSTER".to_owned(), "KEYSLOT".to_owned(), key.clone()]);
        let slots = slots
            .each_ref()
            .map(|args| args.each_ref().map(String::as_str));
        let [data, lease] = slots;
        assert_eq!(node.ask::<u64>(&data).await, node.ask::<u64>(&lease).await);
    }

    // Sessions.
    let fleet = Fleet::start().await;
    fleet
        .sign_in(fleet.place(&patient(cluster.client("fleet", "password"))))
        .await;
    let session = |_| fleet.process_at(&patient(cluster.client("fleet", "password")));
    let sessions: Vec<_> = (0..4).map(session).collect();
    for end in 1..=3 {
        let tokens = join_all(sessions.iter().map(|process| secret(&process.cache))).await;
        assert_eq!(tokens, vec![format!("token-{end}"); 4]);
        fleet.end_tokens();
    }
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);

    // A node dies, and no other node serves its slots.
    cluster.nodes.remove(0);
    let before = idp.token_requests();
    let store = SharedRedis::sealed(cluster.client("fleet", "password"), key());
    for tenant in 0..TENANTS {
        let source = source(&idp);
        let key = source.token_key().subject(tenant.to_string());
        secret(&TokenCache::new(SharedSource::new(
            source,
            store.clone(),
            key,
        )))
        .await;
    }
    assert!(idp.token_requests() > before);
}

async fn redis_behind_tls_is_shared_and_an_untrusted_one_counts_as_down() {
    let tls = Tls::new();
    let redis = Redis::start_with_tls(&tls).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, patient(redis.client()));
    let token = secret(&one).await;
    assert_eq!(secret(&process(&idp, patient(redis.client()))).await, token);
    assert_eq!(idp.token_requests(), 1);
    assert!(store_errors.lock().unwrap().is_empty());
    let fleet = Fleet::start().await;
    fleet.sign_in(fleet.place(&patient(redis.client()))).await;
    let session = fleet.process_at(&patient(redis.client()));
    assert_eq!(secret(&session.cache).await, "token-1");

    // An untrusted certificate, or a client without TLS, counts as an outage.
    let before = redis.scripts_run().await;
    let untrusting = Tls::new().client(redis.port());
    let plain = redis::Client::open(format!("redis://127.0.0.1:{}/", redis.port())).unwrap();
    for client in [untrusting, plain] {
        let before = idp.token_requests();
        let (process, store_errors) = reporting_process(&idp, patient(client.clone()));
        assert_ne!(secret(&process).await, token);
        assert_eq!(idp.token_requests(), before + 1);
        assert_eq!(*store_errors.lock().unwrap(), [Load]);
        let session = fleet.process_at(&patient(client));
        let error = session.cache.token().await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(*session.store_errors.lock().unwrap(), [Lock]);
    }
    assert_eq!(redis.scripts_run().await, before);
    assert_eq!(fleet.refreshes(), [""; 0]);
}

/// The former master becomes a replica, or is killed.
async fn sharing_resumes_after_a_sentinel_failover() {
    futures_util::future::join(fail_over(false), fail_over(true)).await;
}

async fn fail_over(is_killed: bool) {
    let mut watched = Watched::start().await;
    let idp = MockIdp::start().await.unwrap();
    let store = || patient(RedisClient::from(watched.client())).lease(Duration::from_secs(2));
    let stores = [store(), store()];
    let [one, other] = stores.each_ref().map(|store| process(&idp, store.clone()));
    let token = secret(&one).await;
    assert_eq!(secret(&other).await, token);
    let fleet = Fleet::start().await;
    fleet.sign_in(fleet.place(&stores[0])).await;
    let sessions = stores.each_ref().map(|store| fleet.process_at(store));
    for session in &sessions {
        secret(&session.cache).await;
    }
    until("the replica has both", async || {
        let keys = watched.servers[1].keys().await;
        keys.len() == 2 && keys.iter().all(|key| !key.ends_with(":lease"))
    })
    .await;
    match is_killed {
        true => watched.servers[0].kill(),
        false => watched.fail_over().await,
    }
    let replica = &watched.servers[1];
    until("the replica is promoted", async || {
        // A promotion closes the connections.
        let role: Result<redis::Value, _> = replica.try_ask(&["ROLE"]).await;
        role.is_ok_and(|role| format!("{role:?}").contains("master"))
    })
    .await;
    // No client is informed, and the sentinel may still name the old master for a moment.
    until("they share", async || {
        let renewed = one.refresh().await.unwrap();
        replica.keys().await.len() >= 2
            && secret(&process(&idp, patient(replica.client()))).await == renewed.expose_secret()
    })
    .await;
    // The session continues.
    fleet.end_tokens();
    until("the session continues", async || {
        fleet.clock.advance(Duration::from_secs(600));
        sessions[0].cache.token().await.is_ok()
    })
    .await;
    assert_eq!(secret(&sessions[0].cache).await, "token-2");
    until("the session continues in the other process", async || {
        fleet.clock.advance(Duration::from_secs(60));
        sessions[1].cache.token().await.is_ok()
    })
    .await;
    assert_eq!(secret(&sessions[1].cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"], "{is_killed}");
}

/// The rights that the guide gives to an account.
fn rights() -> Vec<&'static str> {
    let guide = include_str!("../../../docs/redis.md");
    let line = guide.lines().find(|line| line.starts_with("ACL SETUSER"));
    line.unwrap().split(' ').collect()
}

async fn acl_rights_of_the_guide_are_sufficient_and_necessary() {
    let redis = Redis::start().await;
    redis.ask::<()>(&rights()).await;
    let url = format!("redis://fleet:password@127.0.0.1:{}/", redis.port());
    // A short lease, so that it is extended.
    let place = || super::store_at(&url).lease(Duration::from_millis(300));
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;

    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, place());
    let hold = idp.hold();
    let refresh = tokio::spawn(async move { secret(&one).await });
    until("a lease is extended", async || {
        calls(&redis, "pexpire").await > 0
    })
    .await;
    hold.release();
    let token = refresh.await.unwrap();
    let (other, other_errors) = reporting_process(&idp, place());
    assert_eq!(secret(&other).await, token);

    let fleet = Fleet::start().await;
    let session = || fleet.place(&place());
    fleet.sign_in(session()).await;
    let process = fleet.process(session());
    secret(&process.cache).await;
    fleet.end_tokens();
    secret(&process.cache).await;
    process.session.logout().await.unwrap();

    for store_errors in [store_errors, other_errors, process.store_errors] {
        assert!(store_errors.lock().unwrap().is_empty());
    }
    let denied: Vec<HashMap<String, redis::Value>> = redis.ask(&["ACL", "LOG"]).await;
    for denied in denied {
        // The client library tries this one and does not need it.
        let what: String = redis::from_redis_value(denied["object"].clone()).unwrap();
        assert_eq!(what, "client|setinfo");
    }
    // Each right is used.
    for right in rights().iter().filter_map(|right| right.strip_prefix('+')) {
        assert!(calls(&redis, right).await > 0, "{right}");
    }
}

/// How often Redis has run a command.
async fn calls(redis: &Redis, command: &str) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]).await;
    let name = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.split(',').next().unwrap().parse().unwrap())
}
