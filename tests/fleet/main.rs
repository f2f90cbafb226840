//! Many processes, one Redis, one token. Here each "process" is a cache with connections of its own;
//! those that die are processes (`fleet_processes.rs`).
//!
//! Each of these was taken away, or put there, to see tests fail: of the scripts, that a lease has one
//! holder, that who looked too early looks again, that generations grow, that a lease is prolonged, by
//! its owner, and given back, by its owner, that an older generation is not written, nor a mark
//! without the lease, and that ends are set and taken off; no pauses between looks, or long ones;
//! values that open elsewhere; a connection that is kept after an error, or nothing tried again; a
//! store's error that is not "busy" (at its lock, before it is sent, and afterwards).

#![cfg(feature = "redis")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests, too"
)]

mod access;
mod broken;
mod keys;
mod outage;
mod sealed;
mod session;
#[path = "../support_redis/mod.rs"]
mod support_redis;
mod topology;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    ClientCredentials, StoreOperation, TokenCache,
    fleet::{RedisClient, RedisStore, SharedSource},
    store::SealingKey,
    testing::MockIdp,
};

use self::{outage::Outage, support_redis::Redis};

/// What goes wrong with Redis, as it is told.
type Told = Arc<Mutex<Vec<StoreOperation>>>;

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

/// Patient, so that a busy machine is no outage.
fn store(redis: &Redis) -> RedisStore {
    patient(redis.client())
}

fn store_at(url: &str) -> RedisStore {
    patient(redis::Client::open(url).unwrap())
}

fn patient(client: impl Into<RedisClient>) -> RedisStore {
    RedisStore::sealed(client, key()).timeout(Duration::from_secs(10))
}

fn source(idp: &MockIdp) -> ClientCredentials {
    ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .scope("orders:read")
        .build()
        .unwrap()
}

/// A process of the fleet.
fn process(idp: &MockIdp, store: RedisStore) -> TokenCache {
    told_process(idp, store).0
}

fn told_process(idp: &MockIdp, store: RedisStore) -> (TokenCache, Told) {
    let told = Told::default();
    let source = source(idp);
    let key = source.token_key();
    let tells = Arc::clone(&told);
    let shared = SharedSource::new(source, store, key)
        .on_store_error(move |error| tells.lock().unwrap().push(error.doing));
    (TokenCache::new(shared), told)
}

async fn secret(cache: &TokenCache) -> String {
    cache.token().await.unwrap().expose_secret().to_owned()
}
