//! A person with a real browser, as a child process: see `tests/e2e/oidc_provider/server/browser.mjs`.

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

/// How long the person may take. Each of their steps has a limit of its own, of half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long the browser may take to end once it is told to.
const END: Duration = Duration::from_secs(20);

/// A browser that is installed here.
#[derive(Clone)]
pub(crate) struct Chromium(PathBuf);

/// One that shows a login. Ended when dropped.
pub(crate) struct Browser {
    child: Child,
    /// It ends when this is closed, so also when this process is killed.
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    said: Receiver<String>,
    /// Profile, cache and all.
    _home: TempDir,
}

impl Chromium {
    pub(crate) fn find() -> Self {
        Self(program().expect("`chromium`"))
    }

    /// Opens `url`, and takes the steps: see the harness.
    pub(crate) fn open(&self, url: &str, steps: &Value) -> Browser {
        let home = tempfile::tempdir().expect("a directory");
        let config = json!({ "chromium": self.0, "url": url, "steps": steps });
        let mut child = Command::new("node")
            .arg("browser.mjs")
            .current_dir(npm_package())
            // Not as an argument: those can be seen by everybody on the machine.
            .env("BROWSER_TEST_CONFIG", config.to_string())
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`node`, which is there: it runs oidc-provider");
        Browser {
            stdin: child.stdin.take(),
            out: read(child.stdout.take().expect("a pipe")),
            said: read(child.stderr.take().expect("a pipe")),
            child,
            _home: home,
        }
    }
}

impl Browser {
    /// What the person has seen in the end.
    pub(crate) async fn seen(self) -> Value {
        // Not here: the login goes on meanwhile.
        let seen = tokio::task::spawn_blocking(move || {
            let report = self.out.recv_timeout(PATIENCE).unwrap_or_default();
            serde_json::from_str(&report).map_err(|_| {
                let said = self.end();
                format!("the browser did not come back: {said}")
            })
        });
        match seen.await.expect("no panic") {
            Ok(seen) => seen,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Ends it; what it has said on stderr.
    fn end(mut self) -> String {
        self.stop();
        self.said.recv_timeout(END).unwrap_or_default()
    }

    fn stop(&mut self) {
        drop(self.stdin.take());
        // Node.js ends Chromium when it ends by itself, and has closed its stdout then.
        let _ = self.out.recv_timeout(END);
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

/// All of it, when it is over.
fn read(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}
