//! A Redis master, its replica, and a Sentinel.

use std::{
    fs,
    process::{Command, Stdio},
};

use redis::{
    Client,
    sentinel::{SentinelClient, SentinelServerType},
};
use tempfile::TempDir;

use super::{Guarded, Redis, free_port, until};

const NAME: &str = "tokens";

pub(crate) struct Watched {
    /// A test may kill some of them.
    pub(crate) servers: Vec<Redis>,
    port: u16,
    _sentinel: Guarded,
    _directory: TempDir,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let master = Redis::start().await;
        let of = master.port().to_string();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &of]).await;
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let path = directory.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", directory.path().display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {of} 1"),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 5000"),
        ];
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let mut command = Command::new("redis-server");
        command.arg(path).arg("--sentinel").stdout(Stdio::null());
        let watched = Self {
            servers: vec![master, replica],
            port,
            _sentinel: Guarded::spawn(&mut command),
            _directory: directory,
        };
        until("the sentinel knows both", async || {
            let replicas = watched.ask(&["REPLICAS", NAME]).await;
            replicas.is_ok_and(|replicas| replicas.contains("\"ok\""))
        })
        .await;
        watched
    }

    /// Sends a command to the Sentinel. Returns the `Debug` of the answer.
    async fn ask(&self, command: &[&str]) -> Result<String, redis::RedisError> {
        let client = Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut sentinel = redis::cmd("SENTINEL");
        command.iter().for_each(|arg| {
            sentinel.arg(*arg);
        });
        let answer: redis::Value = sentinel.query_async(&mut connection).await?;
        Ok(format!("{answer:?}"))
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A client of the current master.
    pub(crate) fn client(&self) -> SentinelClient {
        let sentinels = vec![self.url()];
        let master = SentinelServerType::Master;
        SentinelClient::build(sentinels, NAME, None, master).unwrap()
    }

    /// Makes the replica the master.
    pub(crate) async fn fail_over(&self) {
        until("the replica can take over", async || {
            self.ask(&["FAILOVER", NAME]).await.is_ok()
        })
        .await;
    }
}
