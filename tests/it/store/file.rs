//! `FileStore` within one process: its files, its lock, its errors. Among processes it is tested
//! in `file_processes.rs`, sealed in `file_sealed.rs`.

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
async fn what_is_saved_is_there_for_the_next_one() {
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
async fn a_whole_session_comes_back() {
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
async fn all_files_are_the_owner_s_alone() {
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
    // What somebody left is not written into, with whatever permissions it has.
    let temporary = below.join("session.tmp");
    let mut locked = store.lock().await.unwrap();
    fs::write(&temporary, "left").unwrap();
    widen(&temporary);
    locked.save(Some(&session("second"))).await.unwrap_err();
    locked.save(Some(&session("second"))).await.unwrap();
    assert_eq!((mode(&path), mode(&lock)), (0o600, 0o600));
}

#[tokio::test]
async fn a_temporary_file_of_somebody_who_died_does_no_harm_and_goes() {
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
async fn a_file_cut_at_any_byte_is_an_error_and_can_be_saved_over() {
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
async fn damaged_content_is_an_error_that_names_the_file_and_shows_nothing_of_it() {
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
        assert_eq!(fs::read(&path).unwrap(), content, "it stays as it is");
        save(&store, "new").await.unwrap();
        assert_eq!(load(&store).await.unwrap().as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn a_session_that_could_not_be_read_again_is_not_written() {
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
async fn a_path_that_cannot_be_is_an_error_of_the_lock() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [Path::new("/"), Path::new(""), &file.join("session")] {
        let error = FileStore::new(path).lock().await.unwrap_err();
        let error = text(error.as_ref());
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    // A directory in the place of the session.
    let store = FileStore::new(directory.path().join("taken"));
    fs::create_dir(directory.path().join("taken")).unwrap();
    load(&store).await.unwrap_err();
    save(&store, "new").await.unwrap_err();
    assert_eq!(names(directory.path()), ["file", "taken", "taken.lock"]);
}

/// Under two names it would have two locks; and who can make links might aim at other files.
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
async fn many_tasks_lose_no_update() {
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

/// The clock is tokio's, and stands while a blocking thread works.
#[tokio::test(start_paused = true)]
async fn a_lock_that_does_not_come_free_is_an_error_that_says_whose_it_is() {
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
        assert!(error.contains("this process itself holds it"), "{error}");
        let other = other.lock_timeout(Duration::from_millis(7));
        let error = other.lock().await.unwrap_err();
        assert!(text(error.as_ref()).contains("not free for 7ms"));
    }
    drop(locked);
    load(&FileStore::new(&path)).await.unwrap();
    load(&store).await.unwrap();
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_behind() {
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
    // Waits for its blocking threads, so this would hang if one of them waited for the lock.
    drop(waiting);
    drop(locked);
    // The first try gets it.
    for store in [store, FileStore::new(&path)] {
        let store = store.lock_timeout(Duration::from_millis(1));
        drop(holding.block_on(store.lock()).unwrap());
    }
}

#[tokio::test]
async fn a_save_whose_caller_goes_is_finished_under_the_lock_and_in_its_turn() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    save(&store, "old").await.unwrap();
    // Large, so that it takes a while.
    let large = "x".repeat(900_000);
    for next in [None, Some("next")] {
        let mut locked = store.lock().await.unwrap();
        let session_of_large = session(&large);
        tokio::select! {
            biased;
            saved = locked.save(Some(&session_of_large)) => panic!("at once: {saved:?}"),
            () = ready(()) => {}
        }
        if let Some(next) = next {
            locked.save(Some(&session(next))).await.unwrap();
        }
        drop(locked);
        // Another store: this is about the operating system's lock.
        let other = FileStore::new(directory.path().join("session"));
        let mut locked = other.lock().await.unwrap();
        let loaded = locked.load().await.unwrap().unwrap();
        assert!(refresh_token(&loaded) == next.unwrap_or(&large));
    }
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let directory = directory();
    let store = FileStore::new(directory.path().join("session"));
    let lock = pin!(store.lock());
    let Poll::Ready(locked) = lock.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits");
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
