//! `FileStore` in one process: its files, its lock, its errors. `file_processes.rs` tests it with
//! several processes, `file_sealed.rs` with sealing.

use std::{
    fs,
    future::ready,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bearer_auth::store::{BusyStore, FileStore, LockedSession as _, TokenStore as _};
use tokio::{runtime, task::JoinSet};

use crate::support::{
    errors::text,
    sessions::{CANARY, directory, increment, load, names, refresh_token, save, session},
};

#[tokio::test]
async fn saved_session_is_loaded_by_the_next_store() {
    let directory = directory();
    let path = directory.path().join("session");
    assert_eq!(load(&FileStore::new(&path)).await.unwrap(), None);
    for token in ["first", "a longer second", "3"] {
        save(&FileStore::new(&path), token).await.unwrap();
        let loaded = load(&FileStore::new(&path)).await.unwrap();
        assert_eq!(loaded.as_deref(), Some(token));
    }
    assert_eq!(names(directory.path()), ["session", "session.lock"]);

    let store = FileStore::new(&path);
    for _ in 0..2 {
        store.lock().await.unwrap().save(None).await.unwrap();
        assert_eq!(load(&store).await.unwrap(), None);
        assert_eq!(names(directory.path()), ["session.lock"]);
    }
}

#[tokio::test]
async fn all_fields_of_a_session_are_stored() {
    const JSON: &str = r#"{"version":1,"refresh_token":"r","access_token":"a","scheme":"DPoP","expires_at":4102444800,"since":1700000000,"scope":"x y"}"#;
    let directory = directory();
    let path = directory.path().join("session");
    fs::write(&path, JSON).unwrap();
    let store = FileStore::new(&path);
    let mut locked = store.lock().await.unwrap();
    let session = locked.load().await.unwrap().unwrap();
    locked.save(Some(&session)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), JSON);
}

#[cfg(unix)]
#[tokio::test]
async fn files_and_directories_are_private_to_the_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let widen = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    };

    let directory = directory();
    let (above, below) = (directory.path().join("a"), directory.path().join("a/b"));
    let (path, lock) = (below.join("session"), below.join("session.lock"));
    let store = FileStore::new(&path);
    save(&store, "first").await.unwrap();
    assert_eq!((mode(&above), mode(&below)), (0o700, 0o700));
    assert_eq!((mode(&path), mode(&lock)), (0o600, 0o600));

    widen(&path);
    widen(&lock);
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("first"));
    // An existing temporary file, whose mode may be wrong, is not reused.
    let temporary = below.join("session.tmp");
    let mut locked = store.lock().await.unwrap();
    fs::write(&temporary, "left").unwrap();
    widen(&temporary);
    locked.save(Some(&session("second"))).await.unwrap_err();
    locked.save(Some(&session("second"))).await.unwrap();
    assert_eq!((mode(&path), mode(&lock)), (0o600, 0o600));
}

#[tokio::test]
async fn leftover_temporary_file_is_ignored_and_removed() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    for (left, there) in [(r#"{"version":1,"refresh_tok"#, None), ("", Some("new"))] {
        fs::write(directory.path().join("session.tmp"), left).unwrap();
        assert_eq!(load(&store).await.unwrap().as_deref(), there);
        assert!(!names(directory.path()).contains(&"session.tmp".to_owned()));
        save(&store, "new").await.unwrap();
    }
}

#[tokio::test]
async fn truncated_file_is_an_error_and_can_be_overwritten() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    save(&store, CANARY).await.unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        let error = load(&store).await.unwrap_err();
        assert!(error.contains("session"), "{error}");
        assert!(!error.contains(CANARY), "{error}");
    }
    save(&store, "new").await.unwrap();
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("new"));
}

#[tokio::test]
async fn damaged_file_is_an_error_with_its_path_and_without_its_content() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    let version = |version: &str| format!(r#"{{"version":{version},"refresh_token":"{CANARY}"}}"#);
    let large = format!(
        r#"{{"version":1,"refresh_token":"{}"}}"#,
        CANARY.repeat(100_000)
    );
    let bytes = [CANARY.as_bytes(), b"\xff\xfe"].concat();
    let cases: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "empty"),
        (CANARY.into(), "not a session"),
        (vec![0; 100], "not a session"),
        ("[]".into(), "not a session"),
        ("{}".into(), "not a session"),
        (bytes, "not UTF-8"),
        (large.into(), "larger than 1 MiB"),
        (version("2").into(), "version 2"),
        (version("-1").into(), "not a session"),
        (version(&format!("\"{CANARY}\"")).into(), "not a session"),
        (b"ba-seal\n\x01canary-of-the-file".into(), "sealed"),
    ];
    for (content, problem) in cases {
        fs::write(&path, &content).unwrap();
        let error = load(&store).await.unwrap_err();
        assert!(error.contains(problem), "{problem}: {error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(!error.contains("canary"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content, "the file is unchanged");
        save(&store, "new").await.unwrap();
        assert_eq!(load(&store).await.unwrap().as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn session_that_is_too_large_to_load_is_not_saved() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    save(&store, "old").await.unwrap();
    let error = save(&store, &CANARY.repeat(100_000)).await.unwrap_err();
    assert!(error.contains("larger than 1 MiB"), "{error}");
    assert!(!error.contains(CANARY), "{error}");
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("old"));
    assert_eq!(names(directory.path()), ["session", "session.lock"]);
}

#[tokio::test]
async fn impossible_path_is_an_error_of_lock() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [Path::new("/"), Path::new(""), &file.join("session")] {
        let error = FileStore::new(path).lock().await.unwrap_err();
        let error = text(error.as_ref());
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    // A directory at the session's path.
    let store = FileStore::new(directory.path().join("taken"));
    fs::create_dir(directory.path().join("taken")).unwrap();
    load(&store).await.unwrap_err();
    save(&store, "new").await.unwrap_err();
    assert_eq!(names(directory.path()), ["file", "taken", "taken.lock"]);
}

/// A file with two names would have two locks, and a link could redirect writes to another file.
#[cfg(unix)]
#[tokio::test]
async fn links_and_pipes_are_refused() {
    use std::os::unix::fs::symlink;
    let directory = directory();
    let (target, path) = (directory.path().join("target"), directory.path().join("s"));
    let content = r#"{"version":1,"refresh_token":"other"}"#;
    fs::write(&target, content).unwrap();
    let store = FileStore::new(&path);
    symlink(&target, &path).unwrap();
    load(&store).await.unwrap_err();
    save(&store, "new").await.unwrap_err();
    assert!(path.is_symlink());

    fs::remove_file(&path).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(pipe.unwrap().success());
    load(&store).await.unwrap_err();
    save(&store, "new").await.unwrap_err();

    fs::remove_file(directory.path().join("s.lock")).unwrap();
    symlink(&target, directory.path().join("s.lock")).unwrap();
    store.lock().await.unwrap_err();
    assert_eq!(fs::read_to_string(&target).unwrap(), content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_tasks_lose_no_update() {
    const TASKS: usize = 16;
    const TIMES: usize = 10;
    let directory = directory();
    let path = directory.path().join("session");
    let shared = FileStore::new(&path);
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        // Half of them share one store, the others have one each.
        let store = match number % 2 {
            0 => shared.clone(),
            _ => FileStore::new(&path),
        };
        tasks.spawn(async move {
            for _ in 0..TIMES {
                increment(&store).await;
            }
        });
    }
    tasks.join_all().await;
    let count = load(&shared).await.unwrap().unwrap();
    assert_eq!(count, (TASKS * TIMES).to_string());
}

/// tokio's clock, which does not advance while a blocking thread works.
#[tokio::test(start_paused = true)]
async fn lock_timeout_is_an_error_that_names_the_lock_holder() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    let locked = store.lock().await.unwrap();
    for other in [FileStore::new(&path), store.clone()] {
        let error = other.lock().await.unwrap_err();
        assert!(error.is::<BusyStore>());
        let error = text(error.as_ref());
        assert!(error.contains("session.lock"), "{error}");
        assert!(error.contains("not free for 20s"), "{error}");
        assert!(
            error.contains("this process itself has the lock"),
            "{error}"
        );
        let other = other.lock_timeout(Duration::from_millis(7));
        let error = other.lock().await.unwrap_err();
        assert!(text(error.as_ref()).contains("not free for 7ms"));
    }
    drop(locked);
    load(&FileStore::new(&path)).await.unwrap();
    load(&store).await.unwrap();
}

#[test]
fn dropped_wait_for_the_lock_leaves_no_waiter() {
    let directory = directory();
    let path = directory.path().join("session");
    let runtime = || {
        let mut builder = runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let (holding, waiting) = (runtime(), runtime());
    let store = FileStore::new(&path);
    let locked = holding.block_on(store.lock()).unwrap();
    let clone = store.clone();
    waiting.block_on(async {
        for store in [clone, FileStore::new(&path)] {
            for patience in [0, 1, 10, 1000] {
                let wait = tokio::time::timeout(Duration::from_millis(patience), store.lock());
                wait.await.unwrap_err();
            }
        }
    });
    // The drop waits for the runtime's blocking threads. It would hang if one waited for the lock.
    drop(waiting);
    drop(locked);
    // The first attempt gets the lock.
    for store in [store, FileStore::new(&path)] {
        let store = store.lock_timeout(Duration::from_millis(1));
        drop(holding.block_on(store.lock()).unwrap());
    }
}

#[tokio::test]
async fn cancelled_save_finishes_in_order_and_keeps_the_lock() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    save(&store, "old").await.unwrap();
    // Large, so that writing it takes a while.
    let large = "x".repeat(900_000);
    for next in [None, Some("next")] {
        let mut locked = store.lock().await.unwrap();
        let session_of_large = session(&large);
        tokio::select! {
            biased;
            saved = locked.save(Some(&session_of_large)) => panic!("saved immediately: {saved:?}"),
            () = ready(()) => {}
        }
        if let Some(next) = next {
            locked.save(Some(&session(next))).await.unwrap();
        }
        drop(locked);
        // A separate store, to test the operating system's lock.
        let other = FileStore::new(directory.path().join("session"));
        let mut locked = other.lock().await.unwrap();
        let loaded = locked.load().await.unwrap().unwrap();
        assert!(refresh_token(&loaded) == next.unwrap_or(&large));
    }
}

#[test]
fn lock_without_a_runtime_is_an_error() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    let lock = pin!(store.lock());
    let Poll::Ready(locked) = lock.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the lock is pending");
    };
    locked.unwrap_err();
}

#[tokio::test]
async fn debug_shows_no_session() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    save(&store, CANARY).await.unwrap();
    let mut locked = store.lock().await.unwrap();
    let session = locked.load().await.unwrap();
    let shown = format!("{store:?} {store:#?} {locked:?} {session:?}");
    assert!(shown.contains("session"), "{shown}");
    assert!(!shown.contains(CANARY), "{shown}");
}
