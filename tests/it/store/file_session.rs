//! What a session does when its `FileStore` is busy or damaged.

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

/// An access token that lives as long as this century, and one that is over.
const LIVES: &str =
    r#"{"version":1,"refresh_token":"r","access_token":"a","expires_at":4102444800}"#;
const OVER: &str = r#"{"version":1,"refresh_token":"r","access_token":"a","expires_at":1}"#;

type Failures = Arc<Mutex<Vec<(StoreOperation, String)>>>;

/// Of a session in this store, whose token endpoint never answers; and what the store fails in.
/// The cache's time is a clock's that stands, the store's and the endpoint's is tokio's.
fn cache(store: FileStore) -> (TokenCache, ManualClock, Failures) {
    let failures = Failures::default();
    let heard = Arc::clone(&failures);
    let never = |_: Request<Full<Bytes>>| pending::<Result<Response<Full<Bytes>>, Infallible>>();
    let client = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "id")
        .redirect_uri("https://app.example/callback")
        .http_client(TowerClient::new(tower::service_fn(never)))
        .store(store)
        .on_store_error(move |error| {
            let failure = (error.operation, text(error.cause.as_ref()));
            heard.lock().unwrap().push(failure);
        })
        .build()
        .unwrap();
    let clock = ManualClock::new();
    let cache = TokenCache::builder(client.session()).clock(clock.clone());
    (cache.build(), clock, failures)
}

/// Somebody else has the lock, and will be done: the session is not over.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_busy_is_asked_again_and_nobody_has_to_sign_in() {
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, LIVES).unwrap();
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
async fn a_damaged_file_means_to_sign_in_and_is_told() {
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

/// With a client that sets no limit of its own.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_does_not_keep_the_lock_for_ever() {
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, OVER).unwrap();
    let (cache, _, _) = cache(FileStore::new(&path));
    let asks = tokio::spawn(async move { cache.token().await });
    let patient = |patience| FileStore::new(&path).lock_timeout(Duration::from_millis(patience));
    // Until it has the lock, for which it may have to ask again: the clock stands while we do.
    while patient(1).lock().await.is_ok() {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(load(&patient(61_000)).await.unwrap().unwrap(), "r");
    let error = asks.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
