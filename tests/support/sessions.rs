//! Helpers for session stores.

use std::{fs, path::Path};

use bearer_auth::{
    BoxError,
    store::{LockedSession as _, StoredSession, TokenStore},
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::errors::text;

/// A secret that no output may show.
pub(crate) const CANARY: &str = "canary-of-the-refresh-token";

/// A temporary directory, deleted when dropped.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn session(refresh_token: &str) -> StoredSession {
    let json = json!({ "version": 1, "refresh_token": refresh_token });
    StoredSession::from_json(&json.to_string()).unwrap()
}

pub(crate) fn refresh_token(session: &StoredSession) -> &str {
    session.refresh_token().unwrap().expose_secret()
}

/// Loads the refresh token from the store. `Err`: the text of the error.
pub(crate) async fn load(store: &impl TokenStore) -> Result<Option<String>, String> {
    let load = async || store.lock().await?.load().await;
    let loaded: Result<_, BoxError> = load().await;
    let loaded = loaded.map_err(|error| text(error.as_ref()))?;
    Ok(loaded.map(|session| refresh_token(&session).to_owned()))
}

pub(crate) async fn save(store: &impl TokenStore, refresh_token: &str) -> Result<(), String> {
    let session = session(refresh_token);
    let save = async || store.lock().await?.save(Some(&session)).await;
    save().await.map_err(|error| text(error.as_ref()))
}

/// Increments the number in the refresh token.
pub(crate) async fn increment(store: &impl TokenStore) {
    let mut locked = store.lock().await.unwrap();
    let count = match locked.load().await.unwrap() {
        None => 0,
        Some(session) => refresh_token(&session).parse::<usize>().unwrap(),
    };
    let next = session(&(count + 1).to_string());
    locked.save(Some(&next)).await.unwrap();
}

/// The file names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}
