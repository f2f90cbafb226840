//! `redis-server`, as a child process.

use std::{net::TcpListener, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::Result;

/// Killed when it is dropped.
pub(crate) struct RedisServer {
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Returns `None` if it is not installed.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let version = Command::new("redis-server").arg("--version").output();
        if version.await.is_err() {
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self { port, child: None };
        server.run_again().await?;
        Ok(Some(server))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// How many scripts it has run. `None` if it is down.
    pub(crate) async fn scripts(&self) -> Option<u64> {
        let client = redis::Client::open(self.url()).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut info = redis::cmd("INFO");
        let info = info.arg("commandstats").query_async(&mut connection);
        let info: String = info.await.ok()?;
        let line = |line: &str| {
            line.strip_prefix("cmdstat_evalsha:calls=")
                .map(str::to_owned)
        };
        let calls = info.lines().find_map(line).unwrap_or("0".to_owned());
        calls.split(',').next()?.parse().ok()
    }

    /// Kills the server. Its data is lost.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    pub(crate) async fn run_again(&mut self) -> Result<()> {
        let port = self.port.to_string();
        loop {
            let mut child = Command::new("redis-server")
                .args(["--port", &port, "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let stdout = child.stdout.take().ok_or("no standard output")?;
            let mut lines = BufReader::new(stdout).lines();
            while let Some(line) = lines.next_line().await? {
                if line.contains("Ready to accept connections") {
                    // Without a reader, a full pipe would block the server.
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    self.child = Some(child);
                    return Ok(());
                }
                // The killed server has not released the port yet: try again.
                if !line.contains("Address already in use") && line.contains("Failed listening") {
                    return Err(line.into());
                }
            }
        }
    }
}
