//! `KeyringStore` with the keyring of `gnome-keyring`, in several processes. This test binary starts
//! itself again, as `child`, with the address of the keyring's D-Bus in its environment.

use std::{
    io::stdin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bearer_auth::{
    AuthorizationCode, TokenCache,
    store::{KeyringStore, LockedSession as _, StoreOperation, TokenStore as _},
    testing::{ManualClock, MockIdp},
};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::{
    harness::tests,
    programs::keyring::GnomeKeyring,
    support::{
        errors::text,
        process::{Process, argument, role, say, wait},
        sessions::{CANARY, directory, increment, load, save},
    },
};

tests! {
    needs: [GnomeKeyring];
    child,
    #[threads(2)] session_is_loaded_by_the_next_process_until_it_is_deleted,
    #[threads(2)] long_session_is_stored,
    #[threads(2)] locked_or_stopped_keyring_is_reported_and_loses_nothing,
    #[threads(2)] concurrent_processes_lose_no_update,
    #[threads(2)] processes_share_one_session_and_send_no_refresh_token_twice,
    #[threads(2)] session_continues_while_the_keyring_is_unavailable,
}

const TIMES: usize = 10;
const PROCESSES: usize = 4;

fn store() -> KeyringStore {
    let store = KeyringStore::new("bearer-auth test", "alice", argument("LOCK"));
    // Long, so that a busy machine is no error.
    store.lock_timeout(Duration::from_secs(120))
}

type Failures = Arc<Mutex<Vec<(StoreOperation, String)>>>;

fn client() -> (AuthorizationCode, Failures) {
    let failures = Failures::default();
    let heard = Arc::clone(&failures);
    let client = AuthorizationCode::builder(argument("AUTHORIZE"), argument("TOKEN"), "app")
        .redirect_uri("https://app.example/callback")
        .store(store())
        .on_store_error(move |error| {
            let failure = (error.operation, text(error.cause.as_ref()));
            heard.lock().unwrap().push(failure);
        });
    (client.build().unwrap(), failures)
}

/// Not a test: the code of the child processes.
async fn child() {
    let Some(role) = role() else { return };
    match role.as_str() {
        "save" => save(&store(), CANARY).await.unwrap(),
        "load" => say(&format!("loaded {:?}", load(&store()).await.unwrap())),
        "delete" => {
            // The second time there is nothing to delete, which is no error.
            for _ in 0..2 {
                let mut locked = store().lock().await.unwrap();
                locked.save(None).await.unwrap();
            }
        }
        "sizes" => {
            for size in [1, 2_560, 20_000, 300_000] {
                let token = "x".repeat(size);
                save(&store(), &token).await.unwrap();
                assert_eq!(load(&store()).await.unwrap().unwrap(), token);
            }
        }
        "fail" => {
            let error = load(&store()).await.unwrap_err();
            say(&format!("error {}", error.lines().next().unwrap()));
            let error = save(&store(), "lost").await.unwrap_err();
            say(&format!("error {}", error.lines().next().unwrap()));
        }
        "increment" => {
            say("ready");
            wait();
            let store = store();
            for _ in 0..TIMES {
                increment(&store).await;
            }
        }
        "sign in" => {
            let (client, failures) = client();
            let login = client.start().await.unwrap();
            say(&format!("url {}", login.url()));
            let callback = stdin().lines().next().unwrap().unwrap();
            login.finish(&callback).await.unwrap();
            assert!(failures.lock().unwrap().is_empty(), "{failures:?}");
        }
        "share" => {
            let (client, failures) = client();
            // A clock that stands still, so that no pause limits the refreshes.
            let cache = TokenCache::builder(client.session()).clock(ManualClock::new());
            let cache = cache.build();
            say(&format!(
                "token {}",
                cache.token().await.unwrap().expose_secret()
            ));
            wait();
            for _ in 0..TIMES {
                cache.refresh().await.unwrap();
            }
            assert!(failures.lock().unwrap().is_empty(), "{failures:?}");
        }
        "continue" => {
            let (client, failures) = client();
            let session = client.session();
            let cache = TokenCache::new(session.clone());
            say(&format!(
                "token {}",
                cache.token().await.unwrap().expose_secret()
            ));
            for line in stdin().lines() {
                match line.unwrap().as_str() {
                    "log out" => session.logout().await.unwrap(),
                    _ => drop(cache.refresh().await.unwrap()),
                }
                let failures = std::mem::take(&mut *failures.lock().unwrap());
                let failures: Vec<_> = failures
                    .iter()
                    .map(|(doing, why)| format!("{doing:?}: {}", why.lines().next().unwrap()))
                    .collect();
                say(&format!("failed in {}", failures.join("; ")));
            }
        }
        "start" => match TokenCache::new(client().0.session()).token().await {
            Ok(token) => say(&format!("token {}", token.expose_secret())),
            Err(error) => {
                let (kind, retryable) = (error.kind(), error.is_retryable());
                say(&format!("error {kind:?}, retryable: {retryable}"));
            }
        },
        _ => panic!("{role}"),
    }
}

/// A keyring and an identity provider for child processes.
///
/// The identity provider runs on the runtime, so a test that waits for a child uses `block_in_place`.
struct Desktop {
    keyring: GnomeKeyring,
    idp: MockIdp,
    directory: TempDir,
}

impl Desktop {
    async fn start() -> Self {
        Self {
            keyring: GnomeKeyring::start(),
            idp: MockIdp::builder().client("app", "").start().await.unwrap(),
            directory: directory(),
        }
    }

    fn process(&self, role: &str) -> Process {
        let lock = self.directory.path().join("session.lock");
        let (authorize, token) = (self.idp.authorization_url(), self.idp.token_url());
        let environment = [
            ("LOCK", lock.to_str().unwrap()),
            ("AUTHORIZE", &authorize),
            ("TOKEN", &token),
        ];
        let bus = format!(
            "export DBUS_SESSION_BUS_ADDRESS='{}'",
            self.keyring.address()
        );
        Process::start_after(module_path!(), &bus, role, &environment)
    }

    fn run(&self, role: &str) {
        assert!(ends_well(self.process(role)), "{role}");
    }

    /// The answer of a process with this role.
    fn says(&self, role: &str, word: &str) -> String {
        answer(&mut self.process(role), word)
    }

    /// Signs a user in, in a process that ends then.
    fn sign_in(&self) {
        let mut process = self.process("sign in");
        let url = answer(&mut process, "url ");
        process.tell(&self.idp.sign_in(&url).unwrap());
        assert!(ends_well(process));
    }

    /// The refresh tokens that were sent, in order.
    fn refreshes(&self) -> Vec<String> {
        let sent = self.idp.token_log();
        let sent = sent.iter().flat_map(|request| request.form());
        let tokens = sent.filter(|(name, _)| name == "refresh_token");
        tokens.map(|(_, token)| token).collect()
    }
}

#[track_caller]
fn answer(process: &mut Process, word: &str) -> String {
    block_in_place(|| process.answer(word)).expect("the process has ended")
}

fn ends_well(process: Process) -> bool {
    block_in_place(|| process.succeeds())
}

async fn session_is_loaded_by_the_next_process_until_it_is_deleted() {
    let mut desktop = Desktop::start().await;
    assert_eq!(desktop.says("load", "loaded "), "None");
    desktop.run("save");
    let saved = format!("{:?}", Some(CANARY));
    assert_eq!(desktop.says("load", "loaded "), saved);
    // It survives the next login, and its file does not show the secret.
    desktop.keyring.stop();
    for file in desktop.keyring.files() {
        assert!(!String::from_utf8_lossy(&file).contains(CANARY));
    }
    desktop.keyring.go_on();
    assert_eq!(desktop.says("load", "loaded "), saved);
    desktop.run("delete");
    assert_eq!(desktop.says("load", "loaded "), "None");
}

async fn long_session_is_stored() {
    let desktop = Desktop::start().await;
    desktop.run("sizes");
}

async fn locked_or_stopped_keyring_is_reported_and_loses_nothing() {
    let mut desktop = Desktop::start().await;
    desktop.run("save");
    desktop.keyring.lock();
    let mut process = desktop.process("fail");
    for _ in ["load", "save"] {
        let error = answer(&mut process, "error ");
        assert!(error.contains("in the keyring: locked"), "{error}");
    }
    assert!(ends_well(process));
    desktop.keyring.stop();
    let mut process = desktop.process("fail");
    for _ in ["load", "save"] {
        let error = answer(&mut process, "error ");
        assert!(
            error.contains("in the keyring: the keyring failed"),
            "{error}"
        );
    }
    assert!(ends_well(process));
    desktop.keyring.go_on();
    let saved = format!("{:?}", Some(CANARY));
    assert_eq!(desktop.says("load", "loaded "), saved);
}

async fn concurrent_processes_lose_no_update() {
    let desktop = Desktop::start().await;
    let start = |_| desktop.process("increment");
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    for process in &mut processes {
        process.go();
    }
    for process in processes {
        assert!(ends_well(process));
    }
    let count = format!("{:?}", Some((PROCESSES * TIMES).to_string()));
    assert_eq!(desktop.says("load", "loaded "), count);
}

async fn processes_share_one_session_and_send_no_refresh_token_twice() {
    let desktop = Desktop::start().await;
    desktop.sign_in();
    let start = |_| desktop.process("share");
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        // The login's access token, from the keyring.
        assert_eq!(answer(process, "token "), "token-1");
    }
    assert_eq!(desktop.idp.token_requests(), 1);
    for process in &mut processes {
        process.go();
    }
    for process in processes {
        assert!(ends_well(process));
    }
    let sent = desktop.refreshes();
    assert!(sent.len() >= TIMES, "{sent:?}");
    let expected: Vec<_> = (1..=sent.len()).map(|n| format!("refresh-{n}")).collect();
    assert_eq!(sent, expected, "each one once, in order");
    // The next process finds the last token.
    let last = desktop.idp.issued().pop().unwrap();
    assert_eq!(desktop.says("start", "token "), last);
}

async fn session_continues_while_the_keyring_is_unavailable() {
    let mut desktop = Desktop::start().await;
    desktop.sign_in();
    let mut process = desktop.process("continue");
    assert_eq!(answer(&mut process, "token "), "token-1");
    let mut next = |what: &str| {
        process.tell(what);
        answer(&mut process, "failed in ")
    };
    assert_eq!(next("refresh"), "");
    desktop.keyring.lock();
    let failed = next("refresh");
    assert!(
        failed.starts_with("Load: ") && failed.contains("; Save: "),
        "{failed}"
    );
    assert!(failed.contains("in the keyring: locked"), "{failed}");
    desktop.keyring.stop();
    let failed = next("refresh");
    assert!(
        failed.starts_with("Load: ") && failed.contains("; Save: "),
        "{failed}"
    );
    assert_eq!(desktop.refreshes(), ["refresh-1", "refresh-2", "refresh-3"]);
    // A process without a session in memory gets a retryable error, not `SignInRequired`.
    assert_eq!(desktop.says("start", "error "), "Source, retryable: true");
    // The keyring is back, and the session is saved.
    desktop.keyring.go_on();
    assert_eq!(next("refresh"), "");
    let last = desktop.idp.issued().pop().unwrap();
    assert_eq!(desktop.says("start", "token "), last);
    // A logout ends the session for all processes.
    assert_eq!(next("log out"), "");
    assert_eq!(
        desktop.says("start", "error "),
        "SignInRequired, retryable: false"
    );
    assert_eq!(desktop.says("load", "loaded "), "None");
    assert_eq!(desktop.refreshes().len(), 4);
}
