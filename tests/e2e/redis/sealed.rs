//! A user with access to Redis, but without the key, can neither read nor forge tokens.

use bearer_auth::{
    ErrorKind, TokenCache,
    redis::SharedRedis,
    store::SealingKey,
    store::StoreOperation::Load,
    testing::{Answer, MockIdp},
};

use super::{
    Redis, key, leases_are_free, process, reporting_process, secret, session::Fleet, source, store,
};
use crate::harness::tests;

tests! {
    needs: [Redis];
    sealed_redis_shows_no_token_and_no_name,
    plain_text_redis_shows_tokens,
    sealing_key_is_rotated_while_processes_run,
    sealing_key_of_sessions_is_rotated,
    value_sealed_with_another_key_is_replaced,
    sealed_value_moved_to_another_key_does_not_open,
    modified_sealed_value_does_not_open,
}

/// Names and values of all keys.
async fn dump(redis: &Redis) -> String {
    let mut dump = String::new();
    for key in redis.keys().await {
        let kind: String = redis.ask(&["TYPE", &key]).await;
        let value: Vec<Vec<u8>> = match kind.as_str() {
            "hash" => redis.ask(&["HGETALL", &key]).await,
            "string" => vec![redis.ask(&["GET", &key]).await],
            _ => panic!("{key} is a {kind}"),
        };
        dump += &format!("{key}\n");
        for part in value {
            dump += &format!("{}\n", String::from_utf8_lossy(&part));
        }
    }
    dump
}

fn another_key() -> SealingKey {
    SealingKey::new([8; 32])
}

fn sealed_with(redis: &Redis, key: SealingKey) -> SharedRedis {
    let patience = std::time::Duration::from_secs(10);
    SharedRedis::sealed(redis.client(), key).timeout(patience)
}

/// The id of the sealing key in a value: the eight bytes after `ba-seal` and the version.
async fn key_id(redis: &Redis) -> Vec<u8> {
    let value: Vec<u8> = redis.ask(&["HGET", &redis.keys().await[0], "v"]).await;
    assert!(value.starts_with(b"ba-seal\n\x01"));
    value[9..17].to_vec()
}

async fn sealed_redis_shows_no_token_and_no_name() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let idp = MockIdp::start().await.unwrap();
    let url = |idp: &MockIdp| idp.token_url().replace("http://", "").replace("/token", "");
    let urls = [url(&idp), url(&fleet.idp)];
    let canaries = [
        "client-id",
        "client-secret",
        "orders",
        "token",
        "refresh",
        "alice",
        "app.example",
    ];
    let check = async |when: &str| {
        let dump = dump(&redis).await;
        assert!(!dump.is_empty());
        for canary in canaries
            .iter()
            .copied()
            .chain(urls.iter().map(String::as_str))
        {
            assert!(!dump.contains(canary), "{canary} {when}: {dump}");
        }
    };
    fleet.sign_in(fleet.place(&store(&redis))).await;
    let session = fleet.process_at(&store(&redis));
    let access = process(&idp, store(&redis));
    secret(&access).await;
    secret(&session.cache).await;
    check("written").await;
    // During both token requests.
    fleet.end_tokens();
    let held = [&idp, &fleet.idp].map(MockIdp::hold);
    let refreshing = [access.clone(), session.cache].map(|cache| {
        tokio::spawn(async move {
            cache.refresh().await.unwrap();
        })
    });
    idp.token_requests_reach(2).await;
    fleet.idp.token_requests_reach(2).await;
    check("in flight").await;
    drop(held);
    for refreshing in refreshing {
        refreshing.await.unwrap();
    }
    // A failure is stored in clear text.
    idp.always(Answer::unavailable(30));
    access.refresh().await.unwrap_err();
    let failed = dump(&redis).await;
    assert!(failed.contains("failed "), "{failed}");
    assert!(failed.contains("503"), "{failed}");
    let failed = failed
        .replace("the token endpoint", "")
        .replace("token request", "");
    for canary in canaries
        .iter()
        .copied()
        .chain(urls.iter().map(String::as_str))
    {
        assert!(!failed.contains(canary), "{canary}: {failed}");
    }
}

async fn plain_text_redis_shows_tokens() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let idp = MockIdp::start().await.unwrap();
    let plain = SharedRedis::plain_text(redis.client());
    let token = secret(&process(&idp, plain.clone())).await;
    fleet.sign_in(fleet.place(&plain)).await;
    let dump = dump(&redis).await;
    for shown in [
        &format!(r#""token":"{token}""#),
        r#""refresh_token":"refresh-1""#,
    ] {
        assert!(dump.contains(shown), "{shown}: {dump}");
    }
    for canary in ["client-id", "client-secret", "alice", "127.0.0.1"] {
        assert!(!dump.contains(canary), "{canary}: {dump}");
    }
}

async fn sealing_key_is_rotated_while_processes_run() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let reporting = |store| reporting_process(&idp, store);
    let first = sealed_with(&redis, key());
    let prepared = sealed_with(&redis, key()).with_previous_key(another_key());
    let replaced = sealed_with(&redis, another_key()).with_previous_key(key());
    let last = sealed_with(&redis, another_key());
    let (one, _) = reporting(first.clone());
    let token = secret(&one).await;
    let old_id = key_id(&redis).await;
    let stages = [first, prepared, replaced, last].map(reporting);
    for (process, store_errors) in &stages[..3] {
        assert_eq!(secret(process).await, token);
        assert!(store_errors.lock().unwrap().is_empty());
    }
    assert_eq!(idp.token_requests(), 1);
    // The first process that seals with the new key.
    let [_, prepared, replaced, last] = &stages;
    let token = replaced.0.refresh().await.unwrap();
    let new_id = key_id(&redis).await;
    assert_ne!(new_id, old_id);
    let adopted = prepared.0.refresh().await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(secret(&last.0).await, token.expose_secret());
    for (_, store_errors) in [prepared, last] {
        assert!(store_errors.lock().unwrap().is_empty());
    }
    assert_eq!(idp.token_requests(), 2);
}

async fn sealing_key_of_sessions_is_rotated() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = |store: SharedRedis| fleet.place(&store);
    fleet.sign_in(place(sealed_with(&redis, key()))).await;
    let both = || sealed_with(&redis, another_key()).with_previous_key(key());
    let replaced = fleet.process(place(both()));
    secret(&replaced.cache).await;
    // The old key cannot be dropped yet: the session has not been written again.
    let early = fleet.process(place(sealed_with(&redis, another_key())));
    let error = early.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(*early.store_errors.lock().unwrap(), [Load]);
    fleet.end_tokens();
    let token = secret(&replaced.cache).await;
    let last = fleet.process(place(sealed_with(&redis, another_key())));
    assert_eq!(secret(&last.cache).await, token);
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn value_sealed_with_another_key_is_replaced() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let first = secret(&process(&idp, store(&redis))).await;
    let (other, store_errors) = reporting_process(&idp, sealed_with(&redis, another_key()));
    let token = secret(&other).await;
    assert_ne!(token, first);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
    // The value is overwritten.
    let third = process(&idp, sealed_with(&redis, another_key()));
    assert_eq!(secret(&third).await, token);
    assert_eq!(idp.token_requests(), 2);
    // Nor does a store with a key accept clear text.
    redis.ask::<()>(&["FLUSHALL"]).await;
    let plain = secret(&process(&idp, SharedRedis::plain_text(redis.client()))).await;
    let (sealed, store_errors) = reporting_process(&idp, store(&redis));
    assert_ne!(secret(&sealed).await, plain);
    assert_eq!(*store_errors.lock().unwrap(), [Load]);
}

/// By an attacker who can write to Redis and does not have the key.
async fn sealed_value_moved_to_another_key_does_not_open() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let of = |who: &str| {
        let source = source(&idp);
        let key = source.token_key().subject(who);
        let shared = bearer_auth::redis::SharedSource::new(source, store(&redis), key);
        TokenCache::new(shared)
    };
    let admin = secret(&of("admin")).await;
    leases_are_free(&redis).await;
    let from = redis.keys().await.remove(0);
    let guest = secret(&of("guest")).await;
    leases_are_free(&redis).await;
    let to = redis.keys().await.into_iter().find(|key| *key != from);
    redis
        .ask::<u64>(&["COPY", &from, &to.unwrap(), "REPLACE"])
        .await;
    let next = secret(&of("guest")).await;
    assert!(next != admin && next != guest, "{next}");

    // A session, copied to the key of another session.
    redis.ask::<()>(&["FLUSHALL"]).await;
    let fleet = Fleet::signed_in(&redis).await;
    leases_are_free(&redis).await;
    let from = redis.keys().await.remove(0);
    let elsewhere = fleet.place(&store(&redis).prefix("elsewhere"));
    let hash = from.split_once(':').unwrap().1;
    let to = format!("{{elsewhere:{hash}");
    redis.ask::<u64>(&["COPY", &from, &to]).await;
    let process = fleet.process(elsewhere);
    let error = process.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(*process.store_errors.lock().unwrap(), [Load]);
    assert_eq!(fleet.refreshes(), [""; 0]);
}

async fn modified_sealed_value_does_not_open() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    leases_are_free(&redis).await;
    let name = redis.keys().await.remove(0);
    let value: Vec<u8> = redis.ask(&["HGET", &name, "v"]).await;
    let mut connection = redis.connect().await;
    for at in [0, 8, 9, 17, 41, value.len() - 1] {
        let mut changed = value.clone();
        changed[at] ^= 1;
        let set = redis::cmd("HSET")
            .arg(&name)
            .arg("v")
            .arg(changed)
            .to_owned();
        set.query_async::<u64>(&mut connection).await.unwrap();
        let process = fleet.process_at(&store(&redis));
        let error = process.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired, "{at}");
    }
    assert_eq!(fleet.refreshes(), [""; 0]);
}
