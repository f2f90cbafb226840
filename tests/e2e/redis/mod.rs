//! Many processes share access tokens and sessions in one Redis.
//!
//! A "process" here is a cache with connections of its own. `processes.rs` starts operating system
//! processes, which can be killed. `../oidc_provider/fleet.rs` runs them against a real authorization
//! server.
//!
//! - `access`: one token request for all processes, and the lease that decides who sends it.
//! - `herd`: many processes wait for one lease.
//! - `late`: replies and writes that are lost or late.
//! - `broken`, `outage`: Redis fails; each process falls back to a token request of its own.
//! - `foreign`: values that other programs have written to the keys.
//! - `session`, `unsaved`: a rotating refresh token is sent by one process at a time.
//! - `sealed`: encryption of the values, and rotation of the key.
//! - `topology`, `providers`: cluster, TLS, sentinel, ACL, and rustls's crypto providers.

mod access;
mod broken;
mod foreign;
mod herd;
mod late;
mod outage;
mod processes;
mod providers;
mod sealed;
mod session;
mod topology;
mod unsaved;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    ClientCredentials, TokenCache,
    redis::{RedisClient, SharedRedis, SharedSource},
    store::{SealingKey, StoreOperation},
    testing::MockIdp,
};

use self::outage::{Outage, SwitchedTimeout};
use crate::{
    harness::Test,
    programs::redis::{Redis, until},
    support::tokens::secret,
};

pub(crate) fn tests() -> Vec<Test> {
    [
        access::tests(),
        broken::tests(),
        foreign::tests(),
        herd::tests(),
        late::tests(),
        processes::tests(),
        providers::tests(),
        sealed::tests(),
        session::tests(),
        topology::tests(),
        unsaved::tests(),
    ]
    .concat()
}

/// The operations that failed, as `on_store_error` reported them.
type StoreErrors = Arc<Mutex<Vec<StoreOperation>>>;

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

/// With a long timeout, so that a busy machine is no outage.
fn store(redis: &Redis) -> SharedRedis {
    patient(redis.client())
}

fn store_at(url: &str) -> SharedRedis {
    patient(redis::Client::open(url).unwrap())
}

fn patient(client: impl Into<RedisClient>) -> SharedRedis {
    SharedRedis::sealed(client, key()).timeout(Duration::from_secs(10))
}

fn source(idp: &MockIdp) -> ClientCredentials {
    ClientCredentials::builder(idp.token_url(), "client-id", "client-secret")
        .scope("orders:read")
        .build()
        .unwrap()
}

/// A cache with Redis connections of its own.
fn process(idp: &MockIdp, store: SharedRedis) -> TokenCache {
    reporting_process(idp, store).0
}

/// The same, with the store errors that it reports.
fn reporting_process(idp: &MockIdp, store: SharedRedis) -> (TokenCache, StoreErrors) {
    let store_errors = StoreErrors::default();
    let cache = TokenCache::new(reporting_source(idp, store, &store_errors));
    (cache, store_errors)
}

fn reporting_source(
    idp: &MockIdp,
    store: SharedRedis,
    store_errors: &StoreErrors,
) -> SharedSource<ClientCredentials> {
    let recorded = Arc::clone(store_errors);
    let shared = shared(idp, store);
    shared.on_store_error(move |error| recorded.lock().unwrap().push(error.operation))
}

fn shared(idp: &MockIdp, store: SharedRedis) -> SharedSource<ClientCredentials> {
    let source = source(idp);
    let key = source.token_key();
    SharedSource::new(source, store, key)
}

/// The lease's holder, and the milliseconds until the lease expires.
async fn lease(redis: &Redis) -> Option<(String, u64)> {
    let keys = redis.keys().await;
    let lease = keys.iter().find(|key| key.ends_with(":lease"))?;
    let owner: Option<String> = redis.ask(&["GET", lease]).await;
    let left: i64 = redis.ask(&["PTTL", lease]).await;
    Some((owner?, u64::try_from(left).ok()?))
}

/// Deletes the lease, as its expiry does.
async fn end_lease(redis: &Redis) {
    let keys = redis.keys().await;
    let lease = keys.iter().find(|key| key.ends_with(":lease"));
    let ended: u64 = redis.ask(&["DEL", lease.unwrap()]).await;
    assert_eq!(ended, 1);
}

/// Deletes all leases, if there are any.
async fn end_leases(redis: &Redis) {
    for key in redis.keys().await {
        if key.ends_with(":lease") {
            redis.ask::<u64>(&["DEL", &key]).await;
        }
    }
}

/// Waits until Redis has processed all releases.
async fn leases_are_free(redis: &Redis) {
    until("all leases are released", async || {
        let keys = redis.keys().await;
        keys.iter().all(|key| !key.ends_with(":lease"))
    })
    .await;
}
