//! With the mock keyring of keyring-core, and with entries that fail or wait on demand.
//! `tests/e2e/keyring/store.rs` uses a real keyring.

use std::{
    any::Any,
    sync::atomic::{AtomicUsize, Ordering},
};

use keyring_core::{
    Credential, Result as Answer,
    api::{CredentialApi, CredentialStoreApi as _},
    mock,
};
use tempfile::TempDir;
use tokio::runtime;

use super::*;
use crate::error::{Error, ErrorKind};

const CANARY: &str = "canary-of-the-refresh-token";

fn session(refresh_token: &str) -> StoredSession {
    let json = serde_json::json!({ "version": 1, "refresh_token": refresh_token });
    StoredSession::from_json(&json.to_string()).unwrap()
}

/// A store in a mock keyring of its own.
struct Rig {
    store: KeyringStore,
    keyring: Arc<mock::Store>,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let keyring = mock::Store::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let opened = Arc::clone(&keyring);
        let open = move |service: &str, user: &str| opened.build(service, user, None);
        let lock = directory.path().join("lock");
        Self {
            store: KeyringStore::opened_by("app", "alice", lock, open, ANSWER_TIMEOUT),
            keyring,
            _directory: directory,
        }
    }

    fn entry(&self) -> Entry {
        self.keyring.build("app", "alice", None).unwrap()
    }

    /// Lets the next call fail.
    fn fail(&self, failure: Failure) {
        let entry = self.entry();
        let entry: &mock::Cred = entry.as_any().downcast_ref().unwrap();
        entry.set_error(failure);
    }
}

/// The refresh token in the store.
async fn load(store: &KeyringStore) -> Result<Option<String>, BoxError> {
    let session = store.lock().await?.load().await?;
    let token = |session: StoredSession| session.refresh_token.unwrap().expose_secret().to_owned();
    Ok(session.map(token))
}

async fn save(store: &KeyringStore, refresh_token: &str) -> Result<(), BoxError> {
    let session = session(refresh_token);
    store.lock().await?.save(Some(&session)).await
}

/// All texts of an error and its causes.
fn text(error: &BoxError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(" {error} {error:?}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn saved_session_is_loaded_until_it_is_removed() {
    let rig = Rig::new();
    assert_eq!(load(&rig.store).await.unwrap(), None);
    for token in ["one", "two"] {
        save(&rig.store, token).await.unwrap();
        let loaded = load(&rig.store.clone()).await.unwrap();
        assert_eq!(loaded.as_deref(), Some(token));
    }
    // As text: some keyrings store nothing else.
    let kept = rig.entry().get_password().unwrap();
    assert_eq!(kept, r#"{"version":1,"refresh_token":"two"}"#);
    // Removing twice is not an error.
    for _ in 0..2 {
        let mut locked = rig.store.lock().await.unwrap();
        locked.save(None).await.unwrap();
        assert!(locked.load().await.unwrap().is_none());
    }
    assert!(matches!(rig.entry().get_secret(), Err(Failure::NoEntry)));
}

#[tokio::test]
async fn damaged_entry_is_an_error_without_its_content_and_can_be_replaced() {
    for content in [
        CANARY.as_bytes(),
        b"",
        b"\xff\xfecanary-of-the-refresh-token",
        br#"{"version":2,"refresh_token":"canary-of-the-refresh-token"}"#,
        br#"{"version":1,"refresh_token":"canary-of-the-refresh-token"#,
    ] {
        let rig = Rig::new();
        rig.entry().set_secret(content).unwrap();
        let error = load(&rig.store).await.unwrap_err();
        assert!(error.is::<DamagedSession>(), "{error:?}");
        let text = text(&error);
        assert!(text.contains("`alice` of `app` in the keyring"), "{text}");
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(rig.entry().get_secret().unwrap(), content);
        save(&rig.store, "new").await.unwrap();
        assert_eq!(load(&rig.store).await.unwrap().unwrap(), "new");
    }
}

#[tokio::test]
async fn keyring_failure_names_its_cause_and_shows_no_secret() {
    let cause = || BoxError::from("the cause");
    let canary = || CANARY.as_bytes().to_vec();
    type Fails = Box<dyn Fn(&Rig) -> Failure>;
    let failures: [(Fails, &str, bool); 10] = [
        (
            Box::new(move |_| Failure::NoStorageAccess(cause())),
            "locked, or access was denied: the cause",
            false,
        ),
        (
            Box::new(move |_| Failure::PlatformFailure(cause())),
            "the keyring failed: the cause",
            false,
        ),
        (
            Box::new(move |_| Failure::BadEncoding(canary())),
            "cannot be decoded",
            true,
        ),
        (
            Box::new(move |_| Failure::BadDataFormat(canary(), CANARY.into())),
            "cannot be decoded",
            true,
        ),
        (
            Box::new(|_| Failure::TooLong("user".to_owned(), 513)),
            "user is longer than the limit of this keyring (513)",
            false,
        ),
        (
            Box::new(|_| Failure::Invalid("user".to_owned(), "odd".to_owned())),
            "user is invalid: odd",
            false,
        ),
        (
            Box::new(|rig| Failure::Ambiguous(vec![rig.entry(), rig.entry()])),
            "there are 2 entries",
            false,
        ),
        (
            Box::new(|_| Failure::BadStoreFormat("odd".to_owned())),
            "odd",
            false,
        ),
        (
            Box::new(|_| Failure::NotSupportedByStore("odd".to_owned())),
            "odd",
            false,
        ),
        (
            Box::new(|_| Failure::NoDefaultStore),
            "the keyring failed",
            false,
        ),
    ];
    for (failure, expected, damaged) in failures {
        let rig = Rig::new();
        rig.entry().set_secret(CANARY.as_bytes()).unwrap();
        rig.fail(failure(&rig));
        let error = load(&rig.store).await.unwrap_err();
        let expected = format!("`alice` of `app` in the keyring: {expected}");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!text(&error).contains("canary"), "{error:?}");
        // Other errors are retryable: the session is still in the keyring.
        assert_eq!(error.is::<DamagedSession>(), damaged, "{error}");
        rig.fail(failure(&rig));
        let error = save(&rig.store, CANARY).await.unwrap_err();
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!text(&error).contains("canary"), "{error:?}");
        // The failed write changed nothing.
        assert_eq!(rig.entry().get_secret().unwrap(), CANARY.as_bytes());
        save(&rig.store, "new").await.unwrap();
    }
}

/// The limit of the Credential Manager (`CRED_MAX_CREDENTIAL_BLOB_SIZE`).
#[tokio::test]
async fn too_long_session_is_an_error_and_the_old_one_stays() {
    let rig = Rig::new();
    save(&rig.store, "old").await.unwrap();
    rig.fail(Failure::TooLong("secret".to_owned(), 2560));
    let long = CANARY.repeat(100);
    let error = save(&rig.store, &long).await.unwrap_err();
    let text = text(&error);
    assert!(
        text.contains("the session is longer than the 2560 bytes"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(load(&rig.store).await.unwrap().unwrap(), "old");
}

/// An entry that counts its calls, and answers none before the test drops the sender of `gate`.
#[derive(Clone)]
struct Gated {
    calls: Arc<AtomicUsize>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    then: Arc<Entry>,
}

impl Gated {
    fn wait(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _ = self.gate.lock().unwrap().recv();
    }
}

impl CredentialApi for Gated {
    fn set_secret(&self, secret: &[u8]) -> Answer<()> {
        self.wait();
        self.then.set_secret(secret)
    }

    fn get_secret(&self) -> Answer<Vec<u8>> {
        self.wait();
        self.then.get_secret()
    }

    fn delete_credential(&self) -> Answer<()> {
        self.wait();
        self.then.delete_credential()
    }

    fn get_credential(&self) -> Answer<Option<Arc<Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A store whose keyring does not answer until `gate` is dropped, and a store of another process with
/// the same lock and entry, whose keyring answers at once.
struct Silent {
    store: KeyringStore,
    other_process: KeyringStore,
    calls: Arc<AtomicUsize>,
    gate: mpsc::Sender<()>,
    rig: Rig,
}

fn silent() -> Silent {
    let rig = Rig::new();
    let (sender, gate) = mpsc::channel();
    let calls = Arc::<AtomicUsize>::default();
    let gated = Gated {
        calls: Arc::clone(&calls),
        gate: Arc::new(Mutex::new(gate)),
        then: Arc::new(rig.entry()),
    };
    let open = move |_: &str, _: &str| Ok(Entry::new_with_credential(Arc::new(gated.clone())));
    let lock = rig.store.lock.clone();
    let store = KeyringStore::opened_by("app", "alice", lock, open, Duration::from_millis(5));
    let keyring = Arc::clone(&rig.keyring);
    let open = move |service: &str, user: &str| keyring.build(service, user, None);
    let lock = rig.store.lock.clone();
    let other_process = KeyringStore::opened_by("app", "alice", lock, open, ANSWER_TIMEOUT);
    Silent {
        store,
        other_process,
        calls,
        gate: sender,
        rig,
    }
}

impl Silent {
    /// Waits for this number of calls, and checks that there are no more. A call's thread may start
    /// after its caller has timed out.
    async fn is_called(&self, times: usize) {
        while self.calls.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.calls.load(Ordering::SeqCst), times);
    }
}

/// Waits until no call is unanswered.
async fn answered(store: &KeyringStore) {
    while store.keyring.check_answered().is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unanswered_read_is_an_error_and_allows_no_second_call() {
    let silent = silent();
    save(&silent.rig.store, "kept").await.unwrap();
    let mut locked = silent.store.lock().await.unwrap();
    let error = locked.load().await.unwrap_err();
    assert!(!error.is::<DamagedSession>());
    assert!(error.to_string().contains("no answer for 5ms"), "{error}");
    // Errors at once, without a call.
    assert!(locked.save(Some(&session("new"))).await.is_err());
    assert!(locked.load().await.is_err());
    drop(locked);
    assert!(silent.store.lock().await.is_err());
    assert!(silent.store.clone().lock().await.is_err());
    silent.is_called(1).await;
    // An unanswered read does not keep the lock.
    assert_eq!(load(&silent.other_process).await.unwrap().unwrap(), "kept");
    drop(silent.gate);
    answered(&silent.store).await;
    let again = loop {
        match load(&silent.store).await {
            Ok(again) => break again,
            // On a busy machine even this keyring may take longer than five milliseconds.
            Err(_) => answered(&silent.store).await,
        }
    };
    assert_eq!(again.unwrap(), "kept");
    assert!(silent.calls.load(Ordering::SeqCst) >= 2);
}

/// Tokio's paused clock stands while a blocking thread works: a timeout of 1 ms is one try.
#[tokio::test(start_paused = true)]
async fn unanswered_write_keeps_the_lock_until_it_is_done() {
    let silent = silent();
    assert!(save(&silent.store, "new").await.is_err());
    silent.is_called(1).await;
    let other_process = silent.other_process.clone();
    let one_try = other_process.lock_timeout(Duration::from_millis(1));
    let error = one_try.lock().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("this process itself has the lock"),
        "{error}"
    );
    drop(silent.gate);
    // The write ends on a thread of its own, which tokio's paused clock would not wait for.
    tokio::time::resume();
    assert_eq!(load(&silent.other_process).await.unwrap().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn cancelled_write_is_finished_under_the_lock() {
    let silent = silent();
    let store = silent.store.clone();
    let saves = tokio::spawn(async move { save(&store, "new").await });
    silent.is_called(1).await;
    saves.abort();
    // On a busy machine it may have timed out before.
    let _ = saves.await;
    let other_process = silent.other_process.clone();
    let one_try = other_process.lock_timeout(Duration::from_millis(1));
    assert!(one_try.lock().await.is_err());
    drop(silent.gate);
    // The write ends on a thread of its own, which tokio's paused clock would not wait for.
    tokio::time::resume();
    assert_eq!(load(&silent.other_process).await.unwrap().unwrap(), "new");
}

/// The test hangs if the runtime waits.
#[test]
fn runtime_shutdown_does_not_wait_for_an_unanswered_call() {
    let silent = silent();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let store = silent.store.clone();
    runtime.spawn(async move { load(&store).await });
    while silent.calls.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    drop(runtime);
    drop(silent.gate);
}

#[tokio::test]
async fn panic_in_the_keyring_library_is_an_error() {
    let rig = Rig::new();
    let lock = rig.store.lock.clone();
    let open = |_: &str, _: &str| -> Answer<Entry> { panic!("a broken library") };
    let store = KeyringStore::opened_by("app", "alice", lock, open, ANSWER_TIMEOUT);
    let error = load(&store).await.unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    save(&rig.store, "free").await.unwrap();
}

#[tokio::test]
async fn empty_entry_name_or_invalid_lock_path_is_an_error_of_lock() {
    let lock = |service: &str, user: &str, path: &str| {
        let store = KeyringStore::new(service, user, path);
        async move { store.lock().await.unwrap_err().to_string() }
    };
    for (service, user) in [("", "alice"), ("app", "")] {
        let error = lock(service, user, "/tmp/lock").await;
        assert!(error.contains("a service and a user"), "{error}");
    }
    let error = lock("app", "alice", "/").await;
    assert!(error.contains("not the path of a file"), "{error}");
}

#[test]
fn lock_without_a_runtime_is_an_error() {
    let rig = Rig::new();
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    let mut lock = Box::pin(rig.store.lock());
    let std::task::Poll::Ready(Err(error)) = lock.as_mut().poll(&mut cx) else {
        panic!("no error");
    };
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
}

#[tokio::test]
async fn debug_output_shows_no_session() {
    let rig = Rig::new();
    save(&rig.store, CANARY).await.unwrap();
    let mut locked = rig.store.lock().await.unwrap();
    locked.load().await.unwrap();
    let shown = format!("{:?} {:#?} {locked:?}", rig.store, rig.store);
    assert!(shown.contains("alice") && shown.contains("lock"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}
