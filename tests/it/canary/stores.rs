//! Session files: their modes and their content.

use std::{fs, path::Path};

use bearer_auth::{
    TokenCache, TokenRequest, TokenSource as _,
    store::{
        BusyStore, DamagedSession, FileStore, LockedSession as _, SealingKey, StoredSession,
        TokenStore,
    },
    testing::Answer,
};
use serde_json::json;

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::{self, *},
        rig::{REDIRECT, echo, encoded, idp, second_token, sign_in, token},
        watch::Watch,
    },
};

fn key() -> SealingKey {
    SealingKey::new(Secret::SealingKey.text().into_bytes().try_into().unwrap())
}

fn session() -> StoredSession {
    let json = json!({
        "version": 1,
        "refresh_token": Session.text(),
        "access_token": AccessToken.text(),
        "scheme": "Bearer",
    });
    StoredSession::from_json(&json.to_string()).unwrap()
}

/// Returns names and contents of a directory's files, and checks their modes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).unwrap().map(|file| {
        let path = file.unwrap().path();
        private(&path, 0o600);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}

#[cfg(unix)]
#[track_caller]
fn private(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(found, mode, "{}: {found:o}", path.display());
}

#[cfg(not(unix))]
fn private(_: &Path, _: u32) {}

/// Signs in, refreshes and signs out, and checks the files after each step.
async fn life(watch: &Watch, store: FileStore, directory: &Path, sealed: bool) {
    let idp = idp().await;
    let auth = sign_in(&idp)
        .store(store)
        .on_store_error(Watch::store_error);
    let auth = auth
        .revocation_url(idp.issuer() + "/oauth2/v1/revoke")
        .build()
        .unwrap();
    let login = auth.start().await.unwrap();
    let state = crate::support::canary::rig::parameter(login.url(), "state");
    watch.secret(State, &state);
    let callback = format!("{REDIRECT}?code={}&state={state}", encoded(&Code.text()));
    let look = |known: &[Secret]| {
        private(directory, 0o700);
        for (name, content) in files(directory) {
            let of_session = name == "session";
            assert!(of_session || name == "session.lock", "{name}");
            let found = watch.search(&content);
            let expected = if of_session && !sealed { known } else { &[] };
            assert_eq!(found, expected.iter().copied().collect(), "{name}");
        }
    };
    idp.then(token());
    let session = login.finish(&callback).await.unwrap();
    // Both tokens and nothing else: no ID token, code, client secret or cookie.
    look(&[AccessToken, Session]);
    let cache = TokenCache::new(session.clone());
    cache.token().await.unwrap();
    idp.then(second_token());
    cache.refresh().await.unwrap();
    look(&[SecondAccessToken, SecondRefreshToken]);
    idp.then(Answer::json(
        400,
        json!({"error": "invalid_grant", "error_description": echo()}),
    ));
    cache.refresh().await.unwrap_err();
    look(&[SecondAccessToken]);
    let _ = session.logout().await;
    look(&[]);
    assert!(!directory.join("session").exists());
}

#[tokio::test]
async fn p55_session_file_is_private_and_contains_only_the_tokens() {
    alone!();
    let watch = Watch::new().await;
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("made/for it");
    life(
        &watch,
        FileStore::new(directory.join("session")),
        &directory,
        false,
    )
    .await;
    private(directory.parent().unwrap(), 0o700);
    watch.end();
}

#[tokio::test]
async fn p55_sealed_session_file_contains_no_secret() {
    alone!();
    let watch = Watch::new().await;
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("made");
    let store = FileStore::new(directory.join("session")).sealed_with(key());
    life(&watch, store, &directory, true).await;
    watch.end();
}

/// A file has its private mode before the session is written to it. Existing files with other modes
/// are corrected.
#[cfg(unix)]
#[tokio::test]
async fn p55_session_file_is_private_before_it_has_content() {
    alone!();
    use std::os::unix::fs::PermissionsExt as _;
    let watch = Watch::new().await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("session");
    let store = FileStore::new(&path);
    // Files that all users can read.
    for name in ["session", "session.lock"] {
        let path = home.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mut locked = store.lock().await.unwrap();
    private(&home.path().join("session.lock"), 0o600);
    // A directory blocks the rename, so that only the temporary file is written.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = locked.save(Some(&session())).await.unwrap_err();
    watch.text("Debug of a store's error", format!("{error} {error:?}"));
    assert!(!home.path().join("session.tmp").exists());
    fs::remove_dir(&path).unwrap();
    locked.save(Some(&session())).await.unwrap();
    private(&path, 0o600);
    watch.end();
}

/// Errors name the problem with a file, not its content.
#[tokio::test]
async fn p55_store_errors_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let home = tempfile::tempdir().unwrap();
    let good = session().to_json().unwrap();
    let good = secrecy::ExposeSecret::expose_secret(&good);
    let wrong = json!({"version": 1, "refresh_token": [echo()], "access_token": {}}).to_string();
    let quoted = json!({"version": 1, "since": echo()}).to_string();
    let later = json!({"version": 2, "refresh_token": echo()}).to_string();
    let sealed = b"ba-seal\n\x01"
        .iter()
        .copied()
        .chain(echo().into_bytes())
        .collect();
    for (at, content) in [
        echo().into_bytes(),
        good.as_bytes()[..good.len() - 1].to_vec(),
        good.to_uppercase().into_bytes(),
        wrong.into_bytes(),
        quoted.into_bytes(),
        later.into_bytes(),
        sealed,
        [echo().as_bytes(), b"\xff"].concat(),
        echo().repeat(10_000).into_bytes(),
        Vec::new(),
    ]
    .into_iter()
    .enumerate()
    {
        let path = home.path().join(format!("session-{at}"));
        fs::write(&path, content).unwrap();
        let plain = FileStore::new(&path);
        for store in [plain.clone(), plain.sealed_with(key())] {
            let error = store.lock().await.unwrap().load().await.unwrap_err();
            match error.downcast_ref::<DamagedSession>() {
                Some(damaged) => watch.error(damaged),
                None => watch.text("Debug of a store's error", format!("{error} {error:?}")),
            }
            let auth = sign_in(&idp)
                .store(store)
                .on_store_error(Watch::store_error)
                .build()
                .unwrap();
            watch.error(&auth.session().fetch(TokenRequest::new()).await.unwrap_err());
        }
    }
    // Another process has the lock.
    let store = FileStore::new(home.path().join("session"));
    let _held = store.lock().await.unwrap();
    let other = FileStore::new(home.path().join("session")).lock_timeout(std::time::Duration::ZERO);
    let error = other.lock().await.unwrap_err();
    watch.error(error.downcast_ref::<BusyStore>().unwrap());
    let auth = sign_in(&idp)
        .store(other)
        .on_store_error(Watch::store_error)
        .build()
        .unwrap();
    watch.error(&auth.session().fetch(TokenRequest::new()).await.unwrap_err());
    watch.end();
}
