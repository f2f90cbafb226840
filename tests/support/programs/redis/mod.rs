//! `redis-server` as a child process, on a free port, without persistence.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, RedisResult, aio::MultiplexedConnection,
};

use rustls::crypto::aws_lc_rs;
use tempfile::TempDir;

use self::tls::Tls;
use super::find;

pub(crate) mod cluster;
pub(crate) mod proxy;
pub(crate) mod sentinel;
pub(crate) mod tls;

/// A running server. Killed when dropped, and when this process exits.
pub(crate) struct Redis {
    port: u16,
    args: Vec<String>,
    child: Option<Guarded>,
    /// The server's working directory, for replication and cluster files.
    directory: TempDir,
    tls: Option<Arc<Tls>>,
}

/// A server, and a shell that kills it when the pipe from this process closes, also when this process
/// is killed.
struct Guarded {
    child: Child,
    guard: Child,
}

impl Guarded {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id().to_string();
        let guard = Command::new("sh")
            .args(["-c", "cat; kill -9 \"$0\"", &pid])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        if guard.is_err() {
            let _ = child.kill();
        }
        let guard = guard.unwrap();
        Self { child, guard }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The guard first: once the server is reaped, its process id may belong to another process.
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further arguments.
    pub(crate) async fn start_with(args: &[&str]) -> Self {
        Self::start_as(args, None).await
    }

    /// Starts a server that accepts only TLS.
    pub(crate) async fn start_with_tls(tls: &Arc<Tls>) -> Self {
        // Two providers are linked, and the crate `redis` needs a default.
        let _ = aws_lc_rs::default_provider().install_default();
        Self::start_as(&[], Some(Arc::clone(tls))).await
    }

    async fn start_as(args: &[&str], tls: Option<Arc<Tls>>) -> Self {
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        // Another process may have taken the free port in the meantime.
        for _ in 0..10 {
            let mut redis = Self {
                port: free_port(),
                args: args.clone(),
                child: None,
                directory: TempDir::new().unwrap(),
                tls: tls.clone(),
            };
            if redis.try_run().await {
                return redis;
            }
        }
        panic!("redis-server does not start")
    }

    async fn try_run(&mut self) -> bool {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(tls) => command
                .args(["--port", "0"])
                .args(tls.args(self.directory.path(), &port)),
        };
        command
            .args(["--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(self.directory.path())
            .args(&self.args)
            .stdout(Stdio::null());
        self.child = Some(Guarded::spawn(&mut command));
        let answering = tokio::time::timeout(PATIENCE, self.answers());
        answering.await.expect("redis-server does not answer")
    }

    /// Waits until the server answers. `false`: it has exited, or another process has its port.
    async fn answers(&mut self) -> bool {
        loop {
            let pid = self.child.as_ref().unwrap().child.id();
            if let Some(mut connection) = self.try_connect().await {
                let info: Result<String, _> = redis::cmd("INFO")
                    .arg("server")
                    .query_async(&mut connection)
                    .await;
                return info.is_ok_and(|info| info.contains(&format!("process_id:{pid}\r\n")));
            }
            let child = &mut self.child.as_mut().unwrap().child;
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Starts the server again after [`kill`](Self::kill), on its port, without its data.
    pub(crate) async fn run_again(&mut self) {
        self.directory = TempDir::new().unwrap();
        assert!(self.try_run().await, "redis-server does not start again");
    }

    /// Kills the server, as in a crash: its data is lost.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// Pauses the server until [`go_on`](Self::go_on): it accepts connections, but does not answer.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success(), "kill {signal} {pid}");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        match &self.tls {
            None => Client::open(self.url()).unwrap(),
            Some(tls) => tls.client(self.port),
        }
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        // The default of half a second is too short on a busy machine.
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = self.client();
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        connecting.await.ok()
    }

    /// Connects, and retries: a server that becomes a master closes connections.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let connecting = async {
            loop {
                match self.try_connect().await {
                    Some(connection) => return connection,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let connected = tokio::time::timeout(PATIENCE, connecting).await;
        connected.expect("no connection to redis-server")
    }

    /// Sends a command. `Err`: the server's error.
    pub(crate) async fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> RedisResult<T> {
        let (name, args) = command.split_first().unwrap();
        let mut command = redis::cmd(name);
        for arg in args {
            command.arg(*arg);
        }
        command.query_async(&mut self.connect().await).await
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.unwrap()
    }

    /// The server's time since 1970.
    pub(crate) async fn time(&self) -> Duration {
        let (seconds, micros) = self.ask::<(u64, u64)>(&["TIME"]).await;
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    }

    /// All keys, sorted.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(&["KEYS", "*"]).await;
        keys.sort();
        keys
    }

    /// The number of scripts that the server has run. A script that it did not know yet counts once.
    pub(crate) async fn scripts_run(&self) -> u64 {
        let stats: String = self.ask(&["INFO", "commandstats"]).await;
        let line = |line: &str| line.strip_prefix("cmdstat_evalsha:").map(str::to_owned);
        let stats = stats.lines().find_map(line).unwrap_or_default();
        let count = |name: &str| {
            let number = |field: &str| field.strip_prefix(name)?.parse::<u64>().ok();
            stats.split(',').find_map(number).unwrap_or_default()
        };
        count("calls=") - count("failed_calls=")
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn missing() -> Option<String> {
    let installed = find(&["redis-server"]).is_some();
    let reason = "there is no `redis-server` in the PATH: `apt-get install redis-server`";
    (!installed).then(|| reason.to_owned())
}

/// The limit of all waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until the condition is true, for at most [`PATIENCE`].
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            #[allow(
                clippy::disallowed_methods,
                reason = "between two questions to a server"
            )]
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "{what}: not within {PATIENCE:?}");
}
