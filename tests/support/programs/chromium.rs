//! A user with a real browser, as a child process: see `tests/e2e/oidc_provider/server/browser.mjs`.

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{find, missing_from_npm, npm_package};

/// The limit of all steps together. Each step has a limit of half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// The limit of the browser's shutdown.
const END: Duration = Duration::from_secs(20);

/// An installed browser.
#[derive(Clone)]
pub(crate) struct Chromium(PathBuf);

/// A browser that shows a login. Stopped when dropped.
pub(crate) struct Browser {
    child: Child,
    /// The browser exits when this pipe closes, also when this process is killed.
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Profile and cache.
    _home: TempDir,
}

impl Chromium {
    pub(crate) fn find() -> Self {
        Self(program().expect("`chromium`"))
    }

    /// Opens `url`, and runs the steps (see `browser.mjs`).
    pub(crate) fn open(&self, url: &str, steps: &Value) -> Browser {
        let home = tempfile::tempdir().expect("a directory");
        let config = json!({ "chromium": self.0, "url": url, "steps": steps });
        let mut child = Command::new("node")
            .arg("browser.mjs")
            .current_dir(npm_package())
            // Not as an argument, which all users of the machine can see.
            .env("BROWSER_TEST_CONFIG", config.to_string())
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`node`");
        Browser {
            stdin: child.stdin.take(),
            stdout: read(child.stdout.take().expect("a pipe")),
            stderr: read(child.stderr.take().expect("a pipe")),
            child,
            _home: home,
        }
    }
}

impl Browser {
    /// Waits for the steps, and returns what the last page shows.
    pub(crate) async fn seen(self) -> Value {
        // On another thread: the login continues meanwhile.
        let seen = tokio::task::spawn_blocking(move || {
            let report = self.stdout.recv_timeout(PATIENCE).unwrap_or_default();
            serde_json::from_str(&report).map_err(|_| {
                let stderr = self.end();
                format!("the browser sent no report: {stderr}")
            })
        });
        match seen.await.expect("no panic") {
            Ok(seen) => seen,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Stops the browser, and returns its stderr.
    fn end(mut self) -> String {
        self.stop();
        self.stderr.recv_timeout(END).unwrap_or_default()
    }

    fn stop(&mut self) {
        drop(self.stdin.take());
        // When Node.js exits by itself, it stops Chromium, and closes its stdout.
        let _ = self.stdout.recv_timeout(END);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program() -> Option<PathBuf> {
    find(&["chromium", "google-chrome"])
}

pub(crate) fn missing() -> Option<String> {
    if program().is_none() {
        return Some("there is no `chromium` in the PATH: `apt-get install chromium`".to_owned());
    }
    missing_from_npm("playwright-core")
}

/// Reads a pipe to its end in a thread.
fn read(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}
