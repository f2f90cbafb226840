//! `FileStore` with sealing.

use std::{fs, path::Path};

use bearer_auth::store::{FileStore, SealingKey, TokenStore as _};

use crate::support::{
    errors::text,
    sessions::{CANARY, directory, load, save},
};

fn key(byte: u8) -> SealingKey {
    SealingKey::new([byte; 32])
}

fn sealed(path: &Path, byte: u8) -> FileStore {
    FileStore::new(path).sealed_with(key(byte))
}

#[tokio::test]
async fn sealed_session_is_loaded_and_its_file_shows_nothing() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = sealed(&path, 1);
    assert_eq!(load(&store).await.unwrap(), None);
    save(&store, CANARY).await.unwrap();
    assert_eq!(
        load(&sealed(&path, 1)).await.unwrap().as_deref(),
        Some(CANARY)
    );
    let first = fs::read(&path).unwrap();
    for secret in [CANARY.as_bytes(), b"refresh", b"version", &[1; 8]] {
        assert!(!first.windows(secret.len()).any(|part| part == secret));
    }
    save(&store, CANARY).await.unwrap();
    assert_ne!(fs::read(&path).unwrap(), first, "each file has a new nonce");
}

/// All versions of the crate read files of format version 1.
#[tokio::test]
async fn sealed_file_of_version_1_is_loaded() {
    const VERSION_1: &str = "62612d7365616c0a01d3c7b0dd0e3b5710dafad3eb38b391773c1b81bf010e8fcc3743eb4256214fc0de822b65de8207af555c8297cdcdd9cacde786b2de53dec9817f80295ca27fb6d2e245c76bb3d17b93b45e3fd65f9770488a029a64f261a2181858b3";
    let directory = directory();
    let path = directory.path().join("session");
    let byte = |at| u8::from_str_radix(&VERSION_1[at..at + 2], 16).unwrap();
    let content: Vec<_> = (0..VERSION_1.len()).step_by(2).map(byte).collect();
    fs::write(&path, content).unwrap();
    let loaded = load(&sealed(&path, 7)).await.unwrap();
    assert_eq!(loaded.as_deref(), Some("of version 1"));
}

#[tokio::test]
async fn previous_key_opens_and_current_key_seals() {
    let directory = directory();
    let path = directory.path().join("session");
    save(&sealed(&path, 1), "old").await.unwrap();
    let rotating = || sealed(&path, 2).with_previous_key(key(1));
    // The order of the setters does not matter.
    let other = FileStore::new(&path).with_previous_key(key(1));
    let other = other.with_previous_key(key(3)).sealed_with(key(2));
    for store in [rotating(), other] {
        assert_eq!(load(&store).await.unwrap().as_deref(), Some("old"));
    }
    load(&sealed(&path, 2)).await.unwrap_err();

    save(&rotating(), "new").await.unwrap();
    assert_eq!(load(&rotating()).await.unwrap().as_deref(), Some("new"));
    assert_eq!(
        load(&sealed(&path, 2)).await.unwrap().as_deref(),
        Some("new")
    );
    load(&sealed(&path, 1)).await.unwrap_err();
}

#[tokio::test]
async fn previous_key_without_current_key_is_an_error() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path).with_previous_key(key(1));
    let error = text(store.lock().await.unwrap_err().as_ref());
    assert!(error.contains("sealed_with"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn wrong_key_and_missing_sealing_are_distinct_errors() {
    let directory = directory();
    let path = directory.path().join("session");
    let (plain, one, other) = (FileStore::new(&path), sealed(&path, 1), sealed(&path, 2));
    for (written, read, problem) in [
        (&one, &other, "sealed with another key"),
        (&one, &plain, "sealed, and no key is configured"),
        (&plain, &one, "not sealed, although a key is configured"),
    ] {
        save(written, CANARY).await.unwrap();
        let content = fs::read(&path).unwrap();
        let error = load(read).await.unwrap_err();
        assert!(error.contains(problem), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(!error.contains(CANARY), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content, "the file is unchanged");

        save(read, "new").await.unwrap();
        assert_eq!(load(read).await.unwrap().as_deref(), Some("new"));
        load(written).await.unwrap_err();
    }
}

#[tokio::test]
async fn change_of_any_byte_of_a_sealed_file_is_an_error() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = sealed(&path, 1);
    save(&store, CANARY).await.unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [&flipped[..], &whole[..at]] {
            fs::write(&path, damaged).unwrap();
            let error = load(&store).await.unwrap_err();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(!error.contains(CANARY), "{error}");
        }
    }
    fs::write(&path, [&whole[..], b"\n"].concat()).unwrap();
    load(&store).await.unwrap_err();
    save(&store, "new").await.unwrap();
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("new"));
}

#[tokio::test]
async fn unknown_version_of_a_sealed_file_is_an_error() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = sealed(&path, 1);
    save(&store, CANARY).await.unwrap();
    let mut content = fs::read(&path).unwrap();
    content[8] = 2;
    fs::write(&path, content).unwrap();
    let error = load(&store).await.unwrap_err();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn debug_shows_no_key() {
    let key = || SealingKey::new(*b"canary-of-the-key-canary-of-the-");
    let store = FileStore::new("session").sealed_with(key());
    let store = store.with_previous_key(key());
    let shown = format!("{store:?} {store:#?} {:?}", key());
    assert!(shown.contains("REDACTED"), "{shown}");
    // Neither as text nor as bytes.
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!shown.contains("99, 97"), "{shown}");
}
