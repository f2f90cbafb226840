//! A program that links two crypto providers of rustls and has installed none as the default. There,
//! rustls panics when it builds a configuration, and so does the crate `redis`. `src/redis/client.rs`
//! therefore installs one.
//!
//! The test runs in a process of its own, since the default provider belongs to the process.

use std::{
    panic::catch_unwind,
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    ClientCredentials, TokenCache,
    redis::{SharedRedis, SharedSource, TokenKey},
    store::{SealingKey, StoreOperation},
    testing::MockIdp,
};
use rustls::{ClientConfig, crypto::CryptoProvider};
use tempfile::TempDir;

use crate::{
    harness::tests,
    programs::redis::{Redis, free_port, tls::Tls},
    support::alone::alone,
};

tests! {
    needs: [Redis];
    redis_behind_tls_works_without_a_default_crypto_provider,
}

async fn redis_behind_tls_works_without_a_default_crypto_provider() {
    alone!();
    let tls = Tls::new();
    let directory = TempDir::new().unwrap();
    // A second port without TLS for the test's own commands, so that only the crate uses TLS here.
    let port = free_port();
    let args = tls.args(directory.path(), &port.to_string());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let redis = Redis::start_with(&args).await;
    assert!(CryptoProvider::get_default().is_none());
    assert!(catch_unwind(ClientConfig::builder).is_err());

    let idp = MockIdp::start().await.unwrap();
    let store_errors = Arc::<Mutex<Vec<StoreOperation>>>::default();
    let process = || {
        let client = tls.client(port);
        let store = SharedRedis::sealed(client, SealingKey::new([7; 32]));
        let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret");
        let source = source.build().unwrap();
        let recorded = Arc::clone(&store_errors);
        let shared = SharedSource::new(
            source,
            store.timeout(Duration::from_secs(10)),
            TokenKey::named("token"),
        );
        TokenCache::new(
            shared.on_store_error(move |error| recorded.lock().unwrap().push(error.operation)),
        )
    };
    let token = process().token().await.unwrap();
    let other = process().token().await.unwrap();
    assert_eq!(other.expose_secret(), token.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    assert_eq!(*store_errors.lock().unwrap(), []);
    assert_eq!(redis.keys().await.len(), 1);
}
