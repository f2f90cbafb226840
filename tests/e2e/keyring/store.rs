//! `KeyringStore` with a real keyring, `gnome-keyring`, among processes: this test binary starts
//! itself, as `child`, with the bus that leads to the keyring in its environment.

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
        process::{Process, role, say, told, wait},
        sessions::{CANARY, directory, increment, load, save},
    },
};

tests! {
    needs: [GnomeKeyring];
    child,
    #[threads(2)] a_session_is_there_for_the_next_process_until_it_is_forgotten,
    #[threads(2)] a_session_may_be_long,
    #[threads(2)] a_keyring_that_is_locked_or_gone_is_told_and_has_lost_nothing,
    #[threads(2)] many_processes_lose_no_update,
    #[threads(2)] processes_share_one_session_and_use_no_refresh_token_twice,
    #[threads(2)] a_session_goes_on_without_its_keyring,
}

const TIMES: usize = 10;
const PROCESSES: usize = 4;

/// Who is signed in to what.
fn store() -> KeyringStore {
    let store = KeyringStore::new("bearer-auth test", "alice", told("LOCK"));
    // Patient, so that a busy machine is no error.
    store.lock_timeout(Duration::from_secs(120))
}

type Failures = Arc<Mutex<Vec<(StoreOperation, String)>>>;

fn client() -> (AuthorizationCode, Failures) {
    let failures = Failures::default();
    let heard = Arc::clone(&failures);
    let client = AuthorizationCode::builder(told("AUTHORIZE"), told("TOKEN"), "app")
        .redirect_uri("https://app.example/callback")
        .store(store())
        .on_store_error(move |error| {
            let failure = (error.operation, text(error.cause.as_ref()));
            heard.lock().unwrap().push(failure);
        });
    (client.build().unwrap(), failures)
}

/// Not a test: what the other processes do.
async fn child() {
    let Some(role) = role() else { return };
    match role.as_str() {
        "save" => save(&store(), CANARY).await.unwrap(),
        "load" => say(&format!("loaded {:?}", load(&store()).await.unwrap())),
        "forget" => {
            // Twice is as good.
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
            // Its limits are on a clock that stands.
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
        "go on" => {
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
                let (kind, later) = (error.kind(), error.is_retryable());
                say(&format!("error {kind:?}, later: {later}"));
            }
        },
        _ => panic!("{role}"),
    }
}

/// A keyring, and an identity provider, for processes. The latter lives on the runtime: who waits
/// for a process lets it go on meanwhile.
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
        let told = [
            ("LOCK", lock.to_str().unwrap()),
            ("AUTHORIZE", &authorize),
            ("TOKEN", &token),
        ];
        let bus = format!(
            "export DBUS_SESSION_BUS_ADDRESS='{}'",
            self.keyring.address()
        );
        Process::start_after(module_path!(), &bus, role, &told)
    }

    fn run(&self, role: &str) {
        assert!(ends_well(self.process(role)), "{role}");
    }

    /// What a process of this role says.
    fn says(&self, role: &str, word: &str) -> String {
        answer(&mut self.process(role), word)
    }

    /// Somebody signs in, in a process that ends then.
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
    block_in_place(|| process.answer(word)).expect("it has ended")
}

fn ends_well(process: Process) -> bool {
    block_in_place(|| process.succeeds())
}

async fn a_session_is_there_for_the_next_process_until_it_is_forgotten() {
    let mut desktop = Desktop::start().await;
    assert_eq!(desktop.says("load", "loaded "), "None");
    desktop.run("save");
    let saved = format!("{:?}", Some(CANARY));
    assert_eq!(desktop.says("load", "loaded "), saved);
    // After the next login, too; and nobody else reads it there.
    desktop.keyring.stop();
    for file in desktop.keyring.files() {
        assert!(!String::from_utf8_lossy(&file).contains(CANARY));
    }
    desktop.keyring.go_on();
    assert_eq!(desktop.says("load", "loaded "), saved);
    desktop.run("forget");
    assert_eq!(desktop.says("load", "loaded "), "None");
}

async fn a_session_may_be_long() {
    let desktop = Desktop::start().await;
    desktop.run("sizes");
}

async fn a_keyring_that_is_locked_or_gone_is_told_and_has_lost_nothing() {
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
            error.contains("in the keyring: the keyring fails"),
            "{error}"
        );
    }
    assert!(ends_well(process));
    desktop.keyring.go_on();
    let saved = format!("{:?}", Some(CANARY));
    assert_eq!(desktop.says("load", "loaded "), saved);
}

async fn many_processes_lose_no_update() {
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

async fn processes_share_one_session_and_use_no_refresh_token_twice() {
    let desktop = Desktop::start().await;
    desktop.sign_in();
    let start = |_| desktop.process("share");
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        // That of the login, from the keyring.
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
    assert_eq!(sent, expected, "each in its turn, once");
    // And the next one finds what the last one got.
    let last = desktop.idp.issued().pop().unwrap();
    assert_eq!(desktop.says("start", "token "), last);
}

async fn a_session_goes_on_without_its_keyring() {
    let mut desktop = Desktop::start().await;
    desktop.sign_in();
    let mut process = desktop.process("go on");
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
    // Who knows nothing yet is told to try again, and not to sign in.
    assert_eq!(desktop.says("start", "error "), "Source, later: true");
    // It is back, and gets what it has missed.
    desktop.keyring.go_on();
    assert_eq!(next("refresh"), "");
    let last = desktop.idp.issued().pop().unwrap();
    assert_eq!(desktop.says("start", "token "), last);
    // The end of the session is everybody's.
    assert_eq!(next("log out"), "");
    assert_eq!(
        desktop.says("start", "error "),
        "SignInRequired, later: false"
    );
    assert_eq!(desktop.says("load", "loaded "), "None");
    assert_eq!(desktop.refreshes().len(), 4);
}
