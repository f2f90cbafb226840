//! `FileStore` against an authorization server (see `tokens.rs`) that rotates refresh tokens and revokes
//! the grant when one is used twice.

use std::path::Path;

use bearer_auth::{
    AuthorizationCode,
    store::{FileStore, SealingKey},
};
use serde_json::json;

use super::shared::{LIFETIME, cache, grant_survives, share, sign_in};
use crate::{
    harness::tests,
    programs::oidc_provider::{OidcProvider, native_client},
    support::{
        process::{Process, argument, role},
        sessions::directory,
    },
};

tests! {
    needs: [OidcProvider];
    #[threads(2)] child,
    eight_processes_share_one_session_and_the_grant_survives,
    refresh_token_used_twice_revokes_the_grant,
}

fn client(issuer: &str, path: impl AsRef<Path>) -> AuthorizationCode {
    let store = FileStore::new(path).sealed_with(SealingKey::new([7; 32]));
    native_client(issuer)
        .redirect_uri("http://127.0.0.1/callback")
        .store(store)
        .on_store_error(|error| panic!("{error}: {}", error.cause))
        .build()
        .unwrap()
}

/// Not a test: the code of the child processes.
async fn child() {
    if role().is_none() {
        return;
    }
    share(&client(&argument("ISSUER"), argument("PATH"))).await;
}

async fn eight_processes_share_one_session_and_the_grant_survives() {
    let config = json!({ "sign_in": true, "ttl": LIFETIME.as_secs() });
    let idp = OidcProvider::start_with(config);
    let directory = directory();
    let path = directory.path().join("session");
    let client = client(idp.issuer(), &path);
    sign_in(&idp, &client).await;

    let environment = [
        ("ISSUER", idp.issuer().to_owned()),
        ("PATH", path.to_str().unwrap().to_owned()),
    ];
    let environment = environment
        .each_ref()
        .map(|(what, value)| (*what, value.as_str()));
    let start = || Process::start(module_path!(), "share", &environment);
    grant_survives(&idp, &client, start).await;
}

/// The failure that the store's lock prevents in the test above.
async fn refresh_token_used_twice_revokes_the_grant() {
    let idp = OidcProvider::start_with(json!({ "sign_in": true }));
    let directory = directory();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    sign_in(&idp, &client(idp.issuer(), &one)).await;
    std::fs::copy(&one, &other).unwrap();

    let refresh = async |path: &Path| {
        let (cache, clock) = cache(&client(idp.issuer(), path));
        cache.token().await.unwrap();
        clock.advance(LIFETIME);
        cache.token().await
    };
    let token = refresh(&one).await.unwrap();
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    refresh(&other).await.unwrap_err();
    assert_eq!(idp.status_with(token.expose_secret()).await, 401);
}
