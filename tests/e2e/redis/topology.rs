//! Redis as it is run: a cluster, behind TLS, with sentinels.

use std::{collections::HashMap, time::Duration};

use bearer_auth::{
    TokenCache,
    redis::{RedisClient, SharedRedis, SharedSource},
    store::StoreOperation::{Load, Lock},
    testing::MockIdp,
};
use futures_util::future::join_all;

use super::{Redis, key, patient, process, secret, session::Fleet, source, told_process};
use crate::{
    harness::tests,
    programs::redis::{cluster::Cluster, sentinel::Watched, tls::Tls, until},
};

tests! {
    needs: [Redis];
    a_cluster,
    behind_tls,
    with_a_sentinel,
    an_account_with_the_rights_that_the_guide_gives_it,
}

async fn a_cluster() {
    let mut cluster = Cluster::start().await;
    let rights = [&rights()[..], &["+ping", "+cluster|slots"]].concat();
    for node in &cluster.nodes {
        node.ask::<()>(&rights).await;
    }
    let idp = MockIdp::start().await.unwrap();
    const TENANTS: usize = 12;
    // Each has its connections.
    let fleet = || -> Vec<_> {
        let store = patient(cluster.client("fleet", "password"));
        let tenant = |tenant: usize| {
            let source = source(&idp);
            let key = source.token_key().subject(tenant.to_string());
            TokenCache::new(SharedSource::new(source, store.clone(), key))
        };
        (0..TENANTS).map(tenant).collect()
    };
    let (one, other) = (fleet(), fleet());
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

    // All nodes have some, and the two keys of each are on one.
    until("leases are given back", async || {
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
    let people = Fleet::start().await;
    people
        .sign_in(people.place(&patient(cluster.client("fleet", "password"))))
        .await;
    let session = |_| people.process_at(&patient(cluster.client("fleet", "password")));
    let sessions: Vec<_> = (0..4).map(session).collect();
    for end in 1..=3 {
        let tokens = join_all(sessions.iter().map(|process| secret(&process.cache))).await;
        assert_eq!(tokens, vec![format!("token-{end}"); 4]);
        people.end_tokens();
    }
    assert_eq!(people.refreshes(), ["refresh-1", "refresh-2"]);

    // A node dies, and its slots are nowhere.
    cluster.nodes.remove(0);
    let alone = idp.token_requests();
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
    assert!(idp.token_requests() > alone);
}

async fn behind_tls() {
    let tls = Tls::new();
    let redis = Redis::start_with_tls(&tls).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, patient(redis.client()));
    let token = secret(&one).await;
    assert_eq!(secret(&process(&idp, patient(redis.client()))).await, token);
    assert_eq!(idp.token_requests(), 1);
    assert!(told.lock().unwrap().is_empty());
    let people = Fleet::start().await;
    people.sign_in(people.place(&patient(redis.client()))).await;
    let session = people.process_at(&patient(redis.client()));
    assert_eq!(secret(&session.cache).await, "token-1");

    // Whom we do not trust, or who does not speak it, is as good as down.
    let before = redis.scripts_run().await;
    let stranger = Tls::new().client(redis.port());
    let plain = redis::Client::open(format!("redis://127.0.0.1:{}/", redis.port())).unwrap();
    for client in [stranger, plain] {
        let asked = idp.token_requests();
        let (process, told) = told_process(&idp, patient(client.clone()));
        assert_ne!(secret(&process).await, token);
        assert_eq!(idp.token_requests(), asked + 1);
        assert_eq!(*told.lock().unwrap(), [Load]);
        let session = people.process_at(&patient(client));
        let error = session.cache.token().await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(*session.told.lock().unwrap(), [Lock]);
    }
    assert_eq!(redis.scripts_run().await, before);
    assert_eq!(people.refreshes(), [""; 0]);
}

/// Who was the master is a replica, or dead.
async fn with_a_sentinel() {
    futures_util::future::join(master_goes(false), master_goes(true)).await;
}

async fn master_goes(is_killed: bool) {
    let mut watched = Watched::start().await;
    let idp = MockIdp::start().await.unwrap();
    let store = || patient(RedisClient::from(watched.client())).lease(Duration::from_secs(2));
    let stores = [store(), store()];
    let [one, other] = stores.each_ref().map(|store| process(&idp, store.clone()));
    let token = secret(&one).await;
    assert_eq!(secret(&other).await, token);
    let people = Fleet::start().await;
    people.sign_in(people.place(&stores[0])).await;
    let sessions = stores.each_ref().map(|store| people.process_at(store));
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
    until("it is promoted", async || {
        // Which closes its connections.
        let role: Result<redis::Value, _> = replica.try_ask(&["ROLE"]).await;
        role.is_ok_and(|role| format!("{role:?}").contains("master"))
    })
    .await;
    // Nobody has been told. The sentinel may still name the old one for a moment.
    until("they share", async || {
        let renewed = one.refresh().await.unwrap();
        replica.keys().await.len() >= 2
            && secret(&process(&idp, patient(replica.client()))).await == renewed.expose_secret()
    })
    .await;
    // The session is there, and goes on.
    people.end_tokens();
    until("it goes on", async || {
        people.clock.advance(Duration::from_secs(600));
        sessions[0].cache.token().await.is_ok()
    })
    .await;
    assert_eq!(secret(&sessions[0].cache).await, "token-2");
    until("for the other, too", async || {
        people.clock.advance(Duration::from_secs(60));
        sessions[1].cache.token().await.is_ok()
    })
    .await;
    assert_eq!(secret(&sessions[1].cache).await, "token-2");
    assert_eq!(people.refreshes(), ["refresh-1"], "{is_killed}");
}

/// What the guide says that an account needs.
fn rights() -> Vec<&'static str> {
    let guide = include_str!("../../../docs/redis.md");
    let line = guide.lines().find(|line| line.starts_with("ACL SETUSER"));
    line.unwrap().split(' ').collect()
}

async fn an_account_with_the_rights_that_the_guide_gives_it() {
    let redis = Redis::start().await;
    redis.ask::<()>(&rights()).await;
    let url = format!("redis://fleet:password@127.0.0.1:{}/", redis.port());
    // Prolonged, too.
    let place = || super::store_at(&url).lease(Duration::from_millis(300));
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;

    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, place());
    let hold = idp.hold();
    let asking = tokio::spawn(async move { secret(&one).await });
    until("a lease is prolonged", async || {
        calls(&redis, "pexpire").await > 0
    })
    .await;
    hold.release();
    let token = asking.await.unwrap();
    let (other, other_told) = told_process(&idp, place());
    assert_eq!(secret(&other).await, token);

    let fleet = Fleet::start().await;
    let session = || fleet.place(&place());
    fleet.sign_in(session()).await;
    let process = fleet.process(session());
    secret(&process.cache).await;
    fleet.end_tokens();
    secret(&process.cache).await;
    process.session.logout().await.unwrap();

    for told in [told, other_told, process.told] {
        assert!(told.lock().unwrap().is_empty());
    }
    let denied: Vec<HashMap<String, redis::Value>> = redis.ask(&["ACL", "LOG"]).await;
    for denied in denied {
        // What nobody needs, where there is such a thing.
        let what: String = redis::from_redis_value(denied["object"].clone()).unwrap();
        assert_eq!(what, "client|setinfo");
    }
    // And all of it is of use.
    for right in rights().iter().filter_map(|right| right.strip_prefix('+')) {
        assert!(calls(&redis, right).await > 0, "{right}");
    }
}

/// How often a command was run.
async fn calls(redis: &Redis, command: &str) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]).await;
    let name = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.split(',').next().unwrap().parse().unwrap())
}
