//! Operating system processes share tokens: this test binary starts itself again, as `child`. The
//! servers run in the parent.

use std::{process::Command, time::Duration};

use bearer_auth::{
    AuthorizationCode, ClientCredentials, TokenCache,
    redis::{SharedRedis, SharedSource},
    store::SealingKey,
    testing::{ManualClock, MockIdp, RefreshTokens},
};

use crate::{
    harness::tests,
    programs::redis::{Redis, until},
    support::process::{Process, argument, role, say},
};

tests! {
    needs: [Redis];
    #[threads(2)] child,
    eight_processes_that_start_together_make_one_token_request,
    killed_process_delays_the_others_until_its_lease_expires,
    process_resumed_late_does_not_overwrite_a_newer_token,
    refresh_token_of_killed_processes_is_sent_twice_at_most,
    eight_processes_make_one_refresh_request,
}

/// A lease in seconds: long, so that a busy machine does not lose it.
const LONG: u64 = 20;
/// A lease in seconds, for tests that wait for its expiry.
const SHORT: u64 = 2;

fn store(url: &str, lease: u64) -> SharedRedis {
    SharedRedis::sealed(redis::Client::open(url).unwrap(), SealingKey::new([7; 32]))
        .lease(Duration::from_secs(lease))
        .timeout(Duration::from_secs(10))
}

fn sign_in(url: &str, lease: u64, idp: &str) -> AuthorizationCode {
    let urls = [format!("{idp}/authorize"), format!("{idp}/token")];
    let [authorization_url, token_url] = urls;
    let auth = AuthorizationCode::builder(authorization_url, token_url, "app")
        .redirect_uri("https://app.example/callback")
        .build()
        .unwrap();
    let session = store(url, lease).store(auth.token_key("alice"));
    auth.with_store(session)
}

/// Not a test: the code of the child processes.
async fn child() {
    let Some(role) = role() else { return };
    let clock = ManualClock::new();
    let (redis, idp) = (argument("REDIS"), argument("IDP"));
    let lease = argument("LEASE").parse().unwrap();
    let cache = if role == "session" {
        let cache = TokenCache::builder(sign_in(&redis, lease, &idp).session());
        cache.clock(clock.clone()).build()
    } else {
        let source =
            ClientCredentials::builder(format!("{idp}/token"), "client-id", "client-secret");
        let source = source.build().unwrap();
        let key = source.token_key();
        TokenCache::new(SharedSource::new(source, store(&redis, lease), key))
    };
    say("ready");
    let mut last = None;
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "401" => cache.reject(last.as_ref().unwrap()),
            "later" => clock.advance(Duration::from_secs(3600)),
            _ => {}
        }
        match cache.token().await {
            Ok(token) => {
                say(&format!("token {}", token.expose_secret()));
                last = Some(token);
            }
            Err(error) => say(&format!("token: {:?}", error.kind())),
        }
    }
}

/// The servers that the processes share.
struct Servers {
    redis: Redis,
    idp: MockIdp,
    /// In seconds.
    lease: u64,
}

impl Servers {
    async fn start(lease: u64) -> Self {
        let redis = Redis::start().await;
        let idp = MockIdp::builder()
            .client("app", "")
            .client("client-id", "client-secret");
        let idp = idp.start().await.unwrap();
        Self { redis, idp, lease }
    }

    fn idp_url(&self) -> String {
        self.idp
            .token_url()
            .strip_suffix("/token")
            .unwrap()
            .to_owned()
    }

    fn process(&self, role: &str) -> Process {
        let (redis, idp) = (self.redis.url(), self.idp_url());
        let lease = self.lease.to_string();
        let environment = [("REDIS", &*redis), ("IDP", &idp), ("LEASE", &lease)];
        let mut process = Process::start(module_path!(), role, &environment);
        assert!(process.says("ready"));
        process
    }

    fn processes(&self, role: &str, count: usize) -> Vec<Process> {
        (0..count).map(|_| self.process(role)).collect()
    }

    /// Waits until so many more scripts have run: each process that waits for the lease runs some.
    async fn scripts_reach(&self, more: u64) {
        let enough = self.redis.scripts_run().await + more;
        until("the processes wait for the lease", async || {
            self.redis.scripts_run().await >= enough
        })
        .await;
    }

    /// The milliseconds until the lease expires, if a process has it.
    async fn lease(&self) -> Option<u64> {
        let keys = self.redis.keys().await;
        let lease = keys.iter().find(|key| key.ends_with(":lease"))?;
        let left: i64 = self.redis.ask(&["PTTL", lease]).await;
        u64::try_from(left).ok()
    }
}

/// Reads one answer of each process, without blocking the servers here.
async fn answers(processes: Vec<Process>) -> (Vec<String>, Vec<Process>) {
    let reading = tokio::task::spawn_blocking(|| {
        let read = |mut process: Process| {
            let answer = process.answer("token").unwrap();
            (answer, process)
        };
        processes.into_iter().map(read).unzip()
    });
    reading.await.unwrap()
}

fn signal(signal: &str, process: &Process) {
    let id = process.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success());
}

async fn eight_processes_that_start_together_make_one_token_request() {
    let servers = Servers::start(LONG).await;
    let mut processes = servers.processes("access", 8);
    let hold = servers.idp.hold();
    for process in &mut processes {
        process.tell("now");
    }
    servers.idp.token_requests_reach(1).await;
    servers.scripts_reach(2 * 8).await;
    hold.release();
    let (tokens, mut processes) = answers(processes).await;
    assert_eq!(tokens, [" token-1"; 8]);
    assert_eq!(servers.idp.token_requests(), 1);

    // Each process gets a 401.
    let hold = servers.idp.hold();
    for process in &mut processes {
        process.tell("401");
    }
    servers.idp.token_requests_reach(2).await;
    servers.scripts_reach(2 * 8).await;
    hold.release();
    let (tokens, _) = answers(processes).await;
    assert_eq!(tokens, [" token-2"; 8]);
    assert_eq!(servers.idp.token_requests(), 2);
}

/// `kill -9` during the token request.
async fn killed_process_delays_the_others_until_its_lease_expires() {
    let servers = Servers::start(SHORT).await;
    let mut dies = servers.process("access");
    let mut processes = servers.processes("access", 7);
    let hold = servers.idp.hold();
    dies.tell("now");
    servers.idp.token_requests_reach(1).await;
    for process in &mut processes {
        process.tell("now");
    }
    servers.scripts_reach(2 * 7).await;
    dies.kill();
    let mut left = servers.lease().await.unwrap();
    assert!(left <= 2000, "{left}");
    // No process extends the lease or sends a token request before the lease expires.
    let token_requests = || servers.idp.token_requests();
    until("the lease expires", async || {
        let before = token_requests();
        match servers.lease().await {
            Some(now) if now <= left => {
                assert_eq!(before, 1);
                left = now;
                false
            }
            // It has expired, or the next process has it.
            _ => true,
        }
    })
    .await;
    servers.idp.token_requests_reach(2).await;
    hold.release();
    let (tokens, _) = answers(processes).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert!(tokens[0].starts_with(" token-"));
    assert_eq!(token_requests(), 2);
}

/// As after the sleep of a machine: the process resumes when another one has taken its lease and has
/// fetched a token.
async fn process_resumed_late_does_not_overwrite_a_newer_token() {
    let servers = Servers::start(SHORT).await;
    let mut late = servers.process("access");
    let mut other = servers.process("access");
    let hold = servers.idp.hold();
    late.tell("now");
    servers.idp.token_requests_reach(1).await;
    signal("-STOP", &late);
    other.tell("now");
    servers.idp.token_requests_reach(2).await;
    hold.release();
    let (newer, others) = answers(vec![other]).await;
    signal("-CONT", &late);
    let (token, _late) = answers(vec![late]).await;
    assert_ne!(token, newer);
    // The newer token is the shared one.
    let mut third = servers.process("access");
    third.tell("now");
    let (shared, _third) = answers(vec![third]).await;
    assert_eq!(shared, newer);
    assert_eq!(servers.idp.token_requests(), 2);
    drop(others);
}

/// The server may have used the refresh token of a killed process or not. One other process sends it
/// once more; after that, the user must sign in again.
async fn refresh_token_of_killed_processes_is_sent_twice_at_most() {
    let servers = Servers::start(SHORT).await;
    servers.idp.set_refresh_tokens(RefreshTokens::Kept);
    let auth = sign_in(&servers.redis.url(), servers.lease, &servers.idp_url());
    let login = auth.start().await.unwrap();
    let callback = servers.idp.sign_in(login.url()).unwrap();
    login.finish(&callback).await.unwrap();
    let (tokens, mut processes) = {
        let mut processes = servers.processes("session", 3);
        for process in &mut processes {
            process.tell("now");
        }
        answers(processes).await
    };
    assert_eq!(tokens, [" token-1"; 3]);
    let hold = servers.idp.hold();
    for sends in 1..=2 {
        let mut dies = processes.pop().unwrap();
        dies.tell("later");
        servers.idp.token_requests_reach(1 + sends).await;
        dies.kill();
    }
    let mut last = processes.pop().unwrap();
    last.tell("later");
    let (answer, _last) = answers(vec![last]).await;
    assert_eq!(answer, [": SignInRequired"]);
    hold.release();
    assert_eq!(servers.idp.token_requests(), 3);
}

async fn eight_processes_make_one_refresh_request() {
    let servers = Servers::start(LONG).await;
    let auth = sign_in(&servers.redis.url(), servers.lease, &servers.idp_url());
    let login = auth.start().await.unwrap();
    let callback = servers.idp.sign_in(login.url()).unwrap();
    login.finish(&callback).await.unwrap();
    let mut processes = servers.processes("session", 8);
    for refreshes in 0..3 {
        for process in &mut processes {
            process.tell(if refreshes == 0 { "now" } else { "later" });
        }
        let answered;
        (answered, processes) = answers(processes).await;
        let token = format!(" token-{}", refreshes + 1);
        assert!(
            answered.iter().all(|answer| *answer == token),
            "{answered:?}"
        );
        assert_eq!(servers.idp.token_requests(), 1 + refreshes);
    }
}
