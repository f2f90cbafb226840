//! A session with a busy or damaged `FileStore`.

use std::{
    convert::Infallible,
    fs,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    AuthorizationCode, ErrorKind, TokenCache,
    endpoint::TowerClient,
    store::{FileStore, StoreOperation, TokenStore as _},
    testing::ManualClock,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use crate::support::{
    errors::text,
    sessions::{CANARY, directory, load},
};

/// A session with an access token that is valid until 2100.
const VALID: &str =
    r#"{"version":1,"refresh_token":"r","access_token":"a","expires_at":4102444800}"#;
/// A session with an expired access token.
const EXPIRED: &str = r#"{"version":1,"refresh_token":"r","access_token":"a","expires_at":1}"#;

type Failures = Arc<Mutex<Vec<(StoreOperation, String)>>>;

/// Builds the cache of a session in `store`, whose token endpoint never answers, and records the
/// store's errors. The cache uses a manual clock, the store and the HTTP client use tokio's.
fn cache(store: FileStore) -> (TokenCache, ManualClock, Failures) {
    let failures = Failures::default();
    let recorded = Arc::clone(&failures);
    let never = |_: Request<Full<Bytes>>| pending::<Result<Response<Full<Bytes>>, Infallible>>();
    let client = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "id")
        .redirect_uri("https://app.example/callback")
        .http_client(TowerClient::new(tower::service_fn(never)))
        .store(store)
        .on_store_error(move |error| {
            let failure = (error.operation, text(error.cause.as_ref()));
            recorded.lock().unwrap().push(failure);
        })
        .build()
        .unwrap();
    let clock = ManualClock::new();
    let cache = TokenCache::builder(client.session()).clock(clock.clone());
    (cache.build(), clock, failures)
}

/// Another process has the lock for a while; the session continues.
#[tokio::test(start_paused = true)]
async fn busy_store_is_a_retryable_error() {
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, VALID).unwrap();
    let (cache, clock, failures) = cache(FileStore::new(&path));
    let locked = FileStore::new(&path).lock().await.unwrap();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.is_retryable());
    {
        let failures = failures.lock().unwrap();
        assert_eq!(failures[0].0, StoreOperation::Lock);
        assert!(failures[0].1.contains("not free"), "{failures:?}");
    }

    drop(locked);
    clock.advance(Duration::from_secs(60));
    assert_eq!(cache.token().await.unwrap().expose_secret(), "a");
}

#[tokio::test]
async fn damaged_file_requires_sign_in_and_is_reported() {
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, CANARY).unwrap();
    let (cache, _, failures) = cache(FileStore::new(&path));
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!text(&error).contains(CANARY));
    let failures = failures.lock().unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, StoreOperation::Load);
    assert!(failures[0].1.contains("not a session"), "{failures:?}");
    assert!(!failures[0].1.contains(CANARY), "{failures:?}");
}

/// The HTTP client has no time limit of its own.
#[tokio::test(start_paused = true)]
async fn silent_token_endpoint_does_not_block_the_store() {
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, EXPIRED).unwrap();
    let (cache, _, _) = cache(FileStore::new(&path));
    let request = tokio::spawn(async move { cache.token().await });
    let with_timeout = |millis| FileStore::new(&path).lock_timeout(Duration::from_millis(millis));
    // Until the session has the lock, which may take several attempts.
    while with_timeout(1).lock().await.is_ok() {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(load(&with_timeout(61_000)).await.unwrap().unwrap(), "r");
    let error = request.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
