//! Outside a tokio runtime, public async functions return `NoRuntime`. They do not panic.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bearer_auth::{
    AuthorizationCode, BoxError, ClientCredentials, Error, ErrorKind, Session, TokenCache,
    TokenRequest, TokenSource,
    endpoint::TowerClient,
    store::{FileStore, TokenStore as _},
};

use crate::support::http::http1;

const TOKEN_URL: &str = "http://127.0.0.1:9/token";

/// Polls a future once, without a runtime.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits without a runtime"),
    }
}

#[track_caller]
fn assert_no_runtime<T>(result: Result<T, Error>) {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NoRuntime, "{error:?}"),
    }
}

#[track_caller]
fn assert_no_runtime_of_store<T>(result: Result<T, BoxError>) {
    assert_no_runtime(result.map_err(|error| *error.downcast::<Error>().unwrap()));
}

fn session() -> Session {
    AuthorizationCode::builder("https://idp.example/authorize", TOKEN_URL, "client-id")
        .build()
        .unwrap()
        .session()
}

fn client_credentials() -> ClientCredentials {
    ClientCredentials::builder(TOKEN_URL, "client-id", "client-secret")
        .build()
        .unwrap()
}

#[test]
fn session_logout_outside_a_runtime_is_no_runtime() {
    assert_no_runtime(ready(session().logout()));
}

#[test]
fn session_fetch_outside_a_runtime_is_no_runtime() {
    assert_no_runtime(ready(session().fetch(TokenRequest::new())));
}

#[cfg(feature = "reqwest")]
#[test]
fn client_credentials_fetch_outside_a_runtime_is_no_runtime() {
    assert_no_runtime(ready(client_credentials().fetch(TokenRequest::new())));
}

#[test]
fn tower_client_outside_a_runtime_is_no_runtime() {
    let http = || TowerClient::new(http1());
    let source = ClientCredentials::builder(TOKEN_URL, "client-id", "client-secret");
    let source = source.http_client(http()).build().unwrap();
    assert_no_runtime(ready(source.fetch(TokenRequest::new())));
    let auth = AuthorizationCode::builder("https://idp.example/authorize", TOKEN_URL, "client-id");
    let auth = auth
        .http_client(http())
        .pushed_request_url("http://127.0.0.1:9/par");
    assert_no_runtime(ready(auth.build().unwrap().start()));
}

#[cfg(feature = "reqwest")]
#[test]
fn discovery_outside_a_runtime_is_no_runtime() {
    let auth = AuthorizationCode::discover("http://127.0.0.1:9", "client-id").build();
    assert_no_runtime(ready(auth.unwrap().start()));
}

#[test]
fn finish_of_a_login_outside_a_runtime_is_no_runtime() {
    let auth = AuthorizationCode::builder("https://idp.example/authorize", TOKEN_URL, "client-id");
    let login = ready(auth.build().unwrap().start()).unwrap();
    let state = secrecy::ExposeSecret::expose_secret(login.state()).to_owned();
    assert_no_runtime(ready(login.finish(&format!("?code=a&state={state}"))));
}

#[cfg(feature = "login")]
#[test]
fn login_on_loopback_outside_a_runtime_is_no_runtime() {
    let auth = AuthorizationCode::builder("https://idp.example/authorize", TOKEN_URL, "client-id");
    assert_no_runtime(ready(auth.build().unwrap().login_on_loopback(|_| {})));
}

#[test]
fn cache_outside_a_runtime_is_no_runtime() {
    let cache = TokenCache::new(client_credentials());
    assert_no_runtime(ready(cache.token()));
    assert_no_runtime(ready(cache.refresh()));
}

#[cfg(feature = "redis")]
#[test]
fn shared_source_outside_a_runtime_is_no_runtime() {
    use bearer_auth::redis::{SharedRedis, SharedSource};

    let client = redis::Client::open("redis://127.0.0.1:9").unwrap();
    let source = client_credentials();
    let key = source.token_key();
    let shared = SharedSource::new(source, SharedRedis::plain_text(client.clone()), key.clone());
    assert_no_runtime(ready(shared.fetch(TokenRequest::new())));
    let store = SharedRedis::plain_text(client).store(key);
    assert_no_runtime_of_store(ready(store.lock()));
}

#[test]
fn file_store_outside_a_runtime_is_no_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(directory.path().join("session"));
    assert_no_runtime_of_store(ready(store.lock()));
}
