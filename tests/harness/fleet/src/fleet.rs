//! The child processes.

use std::{
    env,
    process::Stdio,
    time::{Duration, Instant},
};

use bearer_auth::testing::MockIdp;
use futures_util::future::{join_all, select_all};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::Result;

/// Killed when it is dropped.
pub(crate) struct Fleet {
    processes: Vec<Process>,
    sent: Instant,
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(idp: &MockIdp, redis: &str) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["child", &idp.token_url(), &idp.api_url(), redis])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no standard input")?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut process = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout).lines(),
        };
        process.until("ready").await?;
        Ok(process)
    }

    async fn send(&mut self, what: &str) -> Result<()> {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await?;
        Ok(self.stdin.flush().await?)
    }

    async fn until(&mut self, word: &str) -> Result<()> {
        loop {
            let line = self.stdout.next_line().await?;
            let line = line.ok_or("a process has ended")?;
            if line == word {
                return Ok(());
            }
        }
    }
}

impl Fleet {
    /// `redis` is the URL, or `none`.
    pub(crate) async fn start(count: usize, idp: &MockIdp, redis: &str) -> Result<Self> {
        let starting = (0..count).map(|_| Process::start(idp, redis));
        let processes = join_all(starting)
            .await
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Self {
            processes,
            sent: Instant::now(),
        })
    }

    /// Sends a command to all processes at once. Returns the time until the last one is done.
    pub(crate) async fn all(&mut self, what: &str) -> Result<Duration> {
        self.send_all(what).await?;
        self.wait_all().await
    }

    pub(crate) async fn send_all(&mut self, what: &str) -> Result<()> {
        self.sent = Instant::now();
        let sending = self.processes.iter_mut().map(|process| process.send(what));
        join_all(sending).await.into_iter().collect()
    }

    /// Waits until all processes have had a 2xx. Returns the time since the command was sent, or since a
    /// process was killed.
    pub(crate) async fn wait_all(&mut self) -> Result<Duration> {
        let done = self.processes.iter_mut();
        let done = done.map(|process| process.until("done"));
        join_all(done).await.into_iter().collect::<Result<()>>()?;
        Ok(self.sent.elapsed())
    }

    /// Kills (`kill -9`) the first process that sends a token request.
    pub(crate) async fn kill_first_fetching(&mut self) -> Result<()> {
        let fetching = self.processes.iter_mut();
        let fetching = fetching.map(|process| Box::pin(process.until("fetching")));
        let (fetched, at, others) = select_all(fetching).await;
        drop(others);
        fetched?;
        let mut process = self.processes.swap_remove(at);
        process.child.kill().await?;
        self.sent = Instant::now();
        Ok(())
    }
}
