//! `FileStore` with several processes: the test binary starts itself as `child`.

use std::{fs, path::Path, time::Duration};

use bearer_auth::store::{FileStore, TokenStore as _};

use crate::support::{
    process::{Process, argument, role, say, wait},
    sessions::{directory, increment, load, names, save},
};

const TIMES: usize = 20;
/// So large that writing it takes many pages.
const LARGE: usize = 300_000;

/// Not a test: the entry point of the child processes.
#[tokio::test]
async fn child() {
    let Some(role) = role() else { return };
    let store = FileStore::new(argument("PATH"));
    match role.as_str() {
        "increment" => {
            say("ready");
            wait();
            for _ in 0..TIMES {
                increment(&store).await;
            }
        }
        "hold" => {
            let _locked = store.lock().await.unwrap();
            say("locked");
            wait();
        }
        "write in a loop" => loop {
            for letter in ["a", "b"] {
                save(&store, &letter.repeat(LARGE)).await.unwrap();
                say("saved");
            }
        },
        "write once" => {
            let error = save(&store, &"n".repeat(LARGE)).await.unwrap_err();
            assert!(error.contains("session: cannot be written"), "{error}");
            say("refused");
        }
        _ => panic!("{role}"),
    }
}

fn start(role: &str, path: &Path) -> Process {
    Process::start(module_path!(), role, &[("PATH", path.to_str().unwrap())])
}

#[cfg(unix)]
fn start_after(command: &str, role: &str, path: &Path) -> Process {
    Process::start_after(
        module_path!(),
        command,
        role,
        &[("PATH", path.to_str().unwrap())],
    )
}

#[tokio::test]
async fn concurrent_processes_lose_no_update() {
    const PROCESSES: usize = 8;
    let directory = directory();
    let path = directory.path().join("session");
    let processes = (0..PROCESSES).map(|_| start("increment", &path));
    let mut processes: Vec<_> = processes.collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    // All processes write at the same time, including this one.
    for process in &mut processes {
        process.go();
    }
    let store = FileStore::new(&path);
    for _ in 0..TIMES {
        increment(&store).await;
    }
    for process in processes {
        assert!(process.succeeds());
    }
    let count = load(&store).await.unwrap().unwrap();
    assert_eq!(count, ((PROCESSES + 1) * TIMES).to_string());
    assert_eq!(names(directory.path()), ["session", "session.lock"]);
}

/// tokio's clock, which does not advance while a blocking thread works: a millisecond is one attempt.
#[tokio::test(start_paused = true)]
async fn killed_lock_holder_releases_the_lock() {
    let directory = directory();
    let path = directory.path().join("session");
    let mut holder = start("hold", &path);
    assert!(holder.says("locked"));

    let store = FileStore::new(&path);
    let error = store.lock().await.unwrap_err().to_string();
    let id = format!("process {} has the lock", holder.id());
    assert!(error.contains(&id), "{error}");

    holder.kill();
    let store = store.lock_timeout(Duration::from_millis(1));
    drop(store.lock().await.unwrap());
}

#[tokio::test]
async fn ending_lock_holder_releases_the_lock() {
    let directory = directory();
    let path = directory.path().join("session");
    let mut holder = start("hold", &path);
    assert!(holder.says("locked"));
    let store = FileStore::new(&path);
    let waits = tokio::spawn(async move { load(&store).await });
    tokio::task::yield_now().await;
    assert!(holder.succeeds());
    assert_eq!(waits.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn process_killed_while_saving_leaves_a_complete_session() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    save(&store, &"a".repeat(LARGE)).await.unwrap();
    for saves in 1..=12 {
        let mut writer = start("write in a loop", &path);
        for _ in 0..saves {
            assert!(writer.says("saved"));
        }
        writer.kill();
        let left = load(&store).await.unwrap().unwrap();
        let whole = ["a", "b"].map(|letter| letter.repeat(LARGE));
        assert!(whole.contains(&left), "{} bytes", left.len());
        assert_eq!(names(directory.path()), ["session", "session.lock"]);
    }
}

/// The operating system kills the process in the middle of a write, when the file reaches the limit.
#[cfg(unix)]
#[tokio::test]
async fn process_killed_in_the_middle_of_a_write_leaves_the_old_session() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    save(&store, "old").await.unwrap();
    let limit = "ulimit -c 0; ulimit -f 64";
    let mut writer = start_after(limit, "write once", &path);
    assert!(!writer.says("refused"));
    assert!(!writer.succeeds());

    let left = fs::metadata(directory.path().join("session.tmp")).unwrap();
    assert!((1..LARGE as u64).contains(&left.len()), "{}", left.len());
    assert_eq!(left.permissions().mode() & 0o777, 0o600);
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("old"));
    assert_eq!(names(directory.path()), ["session", "session.lock"]);
    save(&store, "new").await.unwrap();
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("new"));
}

/// The write fails in the middle of the file, as on a full disk.
#[cfg(unix)]
#[tokio::test]
async fn failed_write_leaves_the_old_session() {
    let directory = directory();
    let path = directory.path().join("session");
    let store = FileStore::new(&path);
    save(&store, "old").await.unwrap();
    let limit = "trap '' XFSZ; ulimit -f 64";
    let mut writer = start_after(limit, "write once", &path);
    assert!(writer.says("refused"));
    assert!(writer.succeeds());
    assert_eq!(names(directory.path()), ["session", "session.lock"]);
    assert_eq!(load(&store).await.unwrap().as_deref(), Some("old"));
}
