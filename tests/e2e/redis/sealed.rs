//! Who reads Redis reads no token, and who writes there makes none.

use bearer_auth::{
    ErrorKind, TokenCache,
    redis::SharedRedis,
    store::SealingKey,
    store::StoreOperation::Load,
    testing::{Answer, MockIdp},
};

use super::{
    Redis, key, leases_are_free, process, secret, session::Fleet, source, store, told_process,
};
use crate::harness::tests;

tests! {
    needs: [Redis];
    there_is_nothing_to_read,
    plain_text_is_what_it_says,
    a_key_is_replaced_while_the_fleet_works,
    so_it_is_with_sessions,
    what_does_not_open_is_as_good_as_absent,
    what_is_moved_does_not_open,
    what_is_changed_does_not_open,
}

/// Names and values of all that is there, however it is stored.
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

/// What a value says of its key: the eight bytes behind `ba-seal` and the version.
async fn key_id(redis: &Redis) -> Vec<u8> {
    let value: Vec<u8> = redis.ask(&["HGET", &redis.keys().await[0], "v"]).await;
    assert!(value.starts_with(b"ba-seal\n\x01"));
    value[9..17].to_vec()
}

async fn there_is_nothing_to_read() {
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
    // While both ask.
    fleet.end_tokens();
    let holds = [&idp, &fleet.idp].map(MockIdp::hold);
    let asking = [access.clone(), session.cache].map(|cache| {
        tokio::spawn(async move {
            cache.refresh().await.unwrap();
        })
    });
    idp.token_requests_reach(2).await;
    fleet.idp.token_requests_reach(2).await;
    check("asking").await;
    drop(holds);
    for asking in asking {
        asking.await.unwrap();
    }
    // What has failed is in clear.
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

async fn plain_text_is_what_it_says() {
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

async fn a_key_is_replaced_while_the_fleet_works() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let told = |store| told_process(&idp, store);
    let first = sealed_with(&redis, key());
    let prepared = sealed_with(&redis, key()).with_previous_key(another_key());
    let replaced = sealed_with(&redis, another_key()).with_previous_key(key());
    let last = sealed_with(&redis, another_key());
    let (one, _) = told(first.clone());
    let token = secret(&one).await;
    let old_id = key_id(&redis).await;
    let stages = [first, prepared, replaced, last].map(told);
    for (process, told) in &stages[..3] {
        assert_eq!(secret(process).await, token);
        assert!(told.lock().unwrap().is_empty());
    }
    assert_eq!(idp.token_requests(), 1);
    // The first that seals with the new one.
    let [_, prepared, replaced, last] = &stages;
    let token = replaced.0.refresh().await.unwrap();
    let new_id = key_id(&redis).await;
    assert_ne!(new_id, old_id);
    let adopted = prepared.0.refresh().await.unwrap();
    assert_eq!(adopted.expose_secret(), token.expose_secret());
    assert_eq!(secret(&last.0).await, token.expose_secret());
    for (_, told) in [prepared, last] {
        assert!(told.lock().unwrap().is_empty());
    }
    assert_eq!(idp.token_requests(), 2);
}

async fn so_it_is_with_sessions() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = |store: SharedRedis| fleet.place(&store);
    fleet.sign_in(place(sealed_with(&redis, key()))).await;
    let both = || sealed_with(&redis, another_key()).with_previous_key(key());
    let replaced = fleet.process(place(both()));
    secret(&replaced.cache).await;
    // Not yet: nothing has been written anew.
    let early = fleet.process(place(sealed_with(&redis, another_key())));
    let error = early.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(*early.told.lock().unwrap(), [Load]);
    fleet.end_tokens();
    let token = secret(&replaced.cache).await;
    let last = fleet.process(place(sealed_with(&redis, another_key())));
    assert_eq!(secret(&last.cache).await, token);
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn what_does_not_open_is_as_good_as_absent() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let first = secret(&process(&idp, store(&redis))).await;
    let (other, told) = told_process(&idp, sealed_with(&redis, another_key()));
    let token = secret(&other).await;
    assert_ne!(token, first);
    assert_eq!(*told.lock().unwrap(), [Load]);
    // And it is overwritten.
    let third = process(&idp, sealed_with(&redis, another_key()));
    assert_eq!(secret(&third).await, token);
    assert_eq!(idp.token_requests(), 2);
    // Nor is what is in clear, among those who seal.
    redis.ask::<()>(&["FLUSHALL"]).await;
    let plain = secret(&process(&idp, SharedRedis::plain_text(redis.client()))).await;
    let (sealed, told) = told_process(&idp, store(&redis));
    assert_ne!(secret(&sealed).await, plain);
    assert_eq!(*told.lock().unwrap(), [Load]);
}

/// By somebody who can write to Redis, and has no key.
async fn what_is_moved_does_not_open() {
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

    // A session, into the place of another person's.
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
    assert_eq!(*process.told.lock().unwrap(), [Load]);
    assert_eq!(fleet.refreshes(), [""; 0]);
}

async fn what_is_changed_does_not_open() {
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
