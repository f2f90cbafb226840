//! A program with two of rustls's providers of cryptography, of which nobody has chosen one: there,
//! rustls panics when it is asked for a configuration, and so does the crate `redis`.
//!
//! A process of its own, since what is chosen once is chosen for all of it. Without the choice in
//! `src/redis/client.rs` it fails.

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
    redis_behind_tls_is_of_use_although_nobody_has_chosen_a_provider,
}

async fn redis_behind_tls_is_of_use_although_nobody_has_chosen_a_provider() {
    alone!();
    let tls = Tls::new();
    let directory = TempDir::new().unwrap();
    // And without TLS at another port, so that only what is tested speaks it here.
    let port = free_port();
    let args = tls.args(directory.path(), &port.to_string());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let redis = Redis::start_with(&args).await;
    assert!(CryptoProvider::get_default().is_none());
    assert!(catch_unwind(ClientConfig::builder).is_err());

    let idp = MockIdp::start().await.unwrap();
    let told = Arc::<Mutex<Vec<StoreOperation>>>::default();
    let process = || {
        let client = tls.client(port);
        let store = SharedRedis::sealed(client, SealingKey::new([7; 32]));
        let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret");
        let source = source.build().unwrap();
        let tells = Arc::clone(&told);
        let shared = SharedSource::new(
            source,
            store.timeout(Duration::from_secs(10)),
            TokenKey::named("token"),
        );
        TokenCache::new(
            shared.on_store_error(move |error| tells.lock().unwrap().push(error.operation)),
        )
    };
    let token = process().token().await.unwrap();
    let other = process().token().await.unwrap();
    assert_eq!(other.expose_secret(), token.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    assert_eq!(*told.lock().unwrap(), []);
    assert_eq!(redis.keys().await.len(), 1);
}
