//! Without a keyring: keyring-core's mock of one, and entries that do what no real one does on
//! demand. `tests/e2e/keyring/store.rs` has a real one.

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

const CANARY: &str = "canary-of-the-refresh-token";

fn session(refresh_token: &str) -> StoredSession {
    let json = serde_json::json!({ "version": 1, "refresh_token": refresh_token });
    StoredSession::from_json(&json.to_string()).unwrap()
}

/// In a keyring of its own, and the one entry of that.
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
            store: KeyringStore::opened_by("app", "alice", lock, open, PATIENCE),
            keyring,
            _directory: directory,
        }
    }

    fn entry(&self) -> Entry {
        self.keyring.build("app", "alice", None).unwrap()
    }

    /// The next question is answered so.
    fn fail(&self, failure: Failure) {
        let entry = self.entry();
        let entry: &mock::Cred = entry.as_any().downcast_ref().unwrap();
        entry.set_error(failure);
    }
}

/// The refresh token that the store has.
async fn load(store: &KeyringStore) -> Result<Option<String>, BoxError> {
    let session = store.lock().await?.load().await?;
    let token = |session: StoredSession| session.refresh_token.unwrap().expose_secret().to_owned();
    Ok(session.map(token))
}

async fn save(store: &KeyringStore, refresh_token: &str) -> Result<(), BoxError> {
    let session = session(refresh_token);
    store.lock().await?.save(Some(&session)).await
}

/// All that an error shows.
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
async fn what_is_saved_is_there_until_it_is_forgotten() {
    let rig = Rig::new();
    assert_eq!(load(&rig.store).await.unwrap(), None);
    for token in ["one", "two"] {
        save(&rig.store, token).await.unwrap();
        let loaded = load(&rig.store.clone()).await.unwrap();
        assert_eq!(loaded.as_deref(), Some(token));
    }
    // As text, which is all that some keyrings keep.
    let kept = rig.entry().get_password().unwrap();
    assert_eq!(kept, r#"{"version":1,"refresh_token":"two"}"#);
    // Forgetting twice is as good.
    for _ in 0..2 {
        let mut locked = rig.store.lock().await.unwrap();
        locked.save(None).await.unwrap();
        assert!(locked.load().await.unwrap().is_none());
    }
    assert!(matches!(rig.entry().get_secret(), Err(Failure::NoEntry)));
}

#[tokio::test]
async fn what_is_no_session_is_told_and_not_shown_and_can_be_saved_over() {
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
async fn a_keyring_that_fails_says_how_and_nothing_else() {
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
            "the keyring fails: the cause",
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
            "user is longer than this keyring's 513",
            false,
        ),
        (
            Box::new(|_| Failure::Invalid("user".to_owned(), "odd".to_owned())),
            "user is invalid: odd",
            false,
        ),
        (
            Box::new(|rig| Failure::Ambiguous(vec![rig.entry(), rig.entry()])),
            "there are 2 of them",
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
            "the keyring fails",
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
        // A keyring that is to be asked again has not lost the session.
        assert_eq!(error.is::<DamagedSession>(), damaged, "{error}");
        rig.fail(failure(&rig));
        let error = save(&rig.store, CANARY).await.unwrap_err();
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!text(&error).contains("canary"), "{error:?}");
        // Nor has it taken anything.
        assert_eq!(rig.entry().get_secret().unwrap(), CANARY.as_bytes());
        save(&rig.store, "new").await.unwrap();
    }
}

/// As the Credential Manager does it (`CRED_MAX_CREDENTIAL_BLOB_SIZE`).
#[tokio::test]
async fn a_session_that_is_too_long_is_told_and_the_old_one_stays() {
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

/// An entry that waits before each answer, for as long as the test holds the other end, and counts
/// what it is asked.
#[derive(Clone)]
struct Waits {
    asked: Arc<AtomicUsize>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    then: Arc<Entry>,
}

impl Waits {
    fn wait(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _ = self.gate.lock().unwrap().recv();
    }
}

impl CredentialApi for Waits {
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

/// A keyring that answers nobody until the sender is dropped, and a store beside it, as of another
/// process, that shares lock and entry and needs not wait.
struct Silent {
    store: KeyringStore,
    beside: KeyringStore,
    asked: Arc<AtomicUsize>,
    answers: mpsc::Sender<()>,
    rig: Rig,
}

fn silent() -> Silent {
    let rig = Rig::new();
    let (answers, gate) = mpsc::channel();
    let asked = Arc::<AtomicUsize>::default();
    let waits = Waits {
        asked: Arc::clone(&asked),
        gate: Arc::new(Mutex::new(gate)),
        then: Arc::new(rig.entry()),
    };
    let open = move |_: &str, _: &str| Ok(Entry::new_with_credential(Arc::new(waits.clone())));
    let lock = rig.store.lock.clone();
    let store = KeyringStore::opened_by("app", "alice", lock, open, Duration::from_millis(5));
    let keyring = Arc::clone(&rig.keyring);
    let open = move |service: &str, user: &str| keyring.build(service, user, None);
    let lock = rig.store.lock.clone();
    let beside = KeyringStore::opened_by("app", "alice", lock, open, PATIENCE);
    Silent {
        store,
        beside,
        asked,
        answers,
        rig,
    }
}

impl Silent {
    /// It has been asked so often, and no more. Whoever gave up may have done so before the thread
    /// that asks has begun.
    async fn is_asked(&self, times: usize) {
        while self.asked.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.asked.load(Ordering::SeqCst), times);
    }
}

/// Until what it was asked has been answered.
async fn answered(store: &KeyringStore) {
    while store.keyring.check_answered().is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_question_without_an_answer_is_an_error_and_not_asked_again() {
    let silent = silent();
    save(&silent.rig.store, "kept").await.unwrap();
    let mut locked = silent.store.lock().await.unwrap();
    let error = locked.load().await.unwrap_err();
    assert!(!error.is::<DamagedSession>());
    assert!(error.to_string().contains("no answer for 5ms"), "{error}");
    // At once: nothing is asked.
    assert!(locked.save(Some(&session("new"))).await.is_err());
    assert!(locked.load().await.is_err());
    drop(locked);
    assert!(silent.store.lock().await.is_err());
    assert!(silent.store.clone().lock().await.is_err());
    silent.is_asked(1).await;
    // Who reads keeps nobody else from the lock.
    assert_eq!(load(&silent.beside).await.unwrap().unwrap(), "kept");
    // There it is.
    drop(silent.answers);
    answered(&silent.store).await;
    let again = loop {
        match load(&silent.store).await {
            Ok(again) => break again,
            // On a busy machine, five milliseconds are short for any keyring.
            Err(_) => answered(&silent.store).await,
        }
    };
    assert_eq!(again.unwrap(), "kept");
    assert!(silent.asked.load(Ordering::SeqCst) >= 2);
}

/// The clock is tokio's, and stands while a blocking thread works: a millisecond is one try.
#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_keeps_the_lock_until_it_is_written() {
    let silent = silent();
    assert!(save(&silent.store, "new").await.is_err());
    silent.is_asked(1).await;
    let hasty = silent.beside.clone().lock_timeout(Duration::from_millis(1));
    let error = hasty.lock().await.unwrap_err();
    assert!(
        error.to_string().contains("this process itself holds it"),
        "{error}"
    );
    drop(silent.answers);
    assert_eq!(load(&silent.beside).await.unwrap().unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_is_finished_under_the_lock() {
    let silent = silent();
    let store = silent.store.clone();
    let saves = tokio::spawn(async move { save(&store, "new").await });
    silent.is_asked(1).await;
    saves.abort();
    // Unless it has given up before, on a busy machine.
    let _ = saves.await;
    let hasty = silent.beside.clone().lock_timeout(Duration::from_millis(1));
    assert!(hasty.lock().await.is_err());
    drop(silent.answers);
    assert_eq!(load(&silent.beside).await.unwrap().unwrap(), "new");
}

/// That this test ends is what it shows.
#[test]
fn a_runtime_that_ends_does_not_wait_for_a_keyring_that_does_not_answer() {
    let silent = silent();
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let store = silent.store.clone();
    runtime.spawn(async move { load(&store).await });
    while silent.asked.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    drop(runtime);
    drop(silent.answers);
}

#[tokio::test]
async fn a_panic_in_a_keyring_s_library_is_an_error() {
    let rig = Rig::new();
    let lock = rig.store.lock.clone();
    let open = |_: &str, _: &str| -> Answer<Entry> { panic!("as if it were broken") };
    let store = KeyringStore::opened_by("app", "alice", lock, open, PATIENCE);
    let error = load(&store).await.unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    save(&rig.store, "free").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_locked_is_told() {
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
fn without_a_runtime_there_is_an_error() {
    let rig = Rig::new();
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    let mut lock = Box::pin(rig.store.lock());
    let std::task::Poll::Ready(Err(error)) = lock.as_mut().poll(&mut cx) else {
        panic!("no error");
    };
    assert!(error.is::<runtime::TryCurrentError>(), "{error}");
}

#[tokio::test]
async fn debug_shows_no_session() {
    let rig = Rig::new();
    save(&rig.store, CANARY).await.unwrap();
    let mut locked = rig.store.lock().await.unwrap();
    locked.load().await.unwrap();
    let shown = format!("{:?} {:#?} {locked:?}", rig.store, rig.store);
    assert!(shown.contains("alice") && shown.contains("lock"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}
