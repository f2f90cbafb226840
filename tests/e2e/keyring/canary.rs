//! A session with canaries as its secrets, in a keyring: see `tests/it/canary`.

use std::fs;

use bearer_auth::{
    AuthorizationCode, TokenCache,
    store::{KeyringStore, LockedSession as _, TokenStore as _},
};
use tokio::task::block_in_place;

use crate::{
    harness::tests,
    programs::keyring::GnomeKeyring,
    support::{
        alone::alone,
        canary::{
            canaries::Secret::*,
            rig::{REDIRECT, encoded, idp, parameter},
            watch::Watch,
        },
        process::{Process, argument, role, say, wait},
    },
};

tests! {
    needs: [GnomeKeyring];
    child,
    #[threads(2)] p55_keyring_traffic_is_not_logged,
}

/// Not a test: the code of the child process.
async fn child() {
    if role().is_none() {
        return;
    }
    keep_in_a_keyring().await;
    say("done");
    wait();
}

async fn keep_in_a_keyring() {
    let watch = Watch::new().await;
    let idp = idp().await;
    let store = KeyringStore::new("bearer-auth canary", "alice", argument("LOCK"));
    watch.debug(&store);
    let auth =
        AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), ClientId.text())
            .client_secret(ClientSecret.text())
            .redirect_uri(REDIRECT)
            .store(store.clone())
            .on_store_error(Watch::store_error);
    let auth = auth.build().unwrap();
    let login = auth.start().await.unwrap();
    let state = parameter(login.url(), "state");
    let callback = format!("{REDIRECT}?code={}&state={state}", encoded(&Code.text()));
    let session = login.finish(&callback).await.unwrap();
    watch.debug(&session);
    let mut locked = store.lock().await.unwrap();
    watch.debug(&locked);
    let kept = locked.load().await.unwrap().unwrap();
    assert!(kept.refresh_token().is_some());
    watch.debug(&kept);
    drop(locked);
    let cache = TokenCache::new(auth.session());
    assert_eq!(
        cache.token().await.unwrap().expose_secret(),
        AccessToken.text()
    );
    let _ = session.logout().await;
    watch.heard(&["tracing zbus", "log keyring_core"]);
    watch.end();
}

async fn p55_keyring_traffic_is_not_logged() {
    alone!();
    let keyring = GnomeKeyring::start();
    let home = tempfile::tempdir().unwrap();
    let lock = home.path().join("session.lock");
    let setup = format!("export DBUS_SESSION_BUS_ADDRESS='{}'", keyring.address());
    let environment = [("LOCK", lock.to_str().unwrap())];
    let mut process = Process::start_after(module_path!(), &setup, "keyring", &environment);
    // The servers of this process keep running meanwhile.
    assert!(block_in_place(|| process.says("done")));
    assert!(block_in_place(|| process.succeeds()));
    let watch = Watch::new().await;
    for content in keyring.files().into_iter().chain([fs::read(lock).unwrap()]) {
        assert!(watch.search(&content).is_empty());
    }
    watch.end();
}
