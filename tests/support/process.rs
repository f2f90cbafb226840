//! Other processes: a test binary starts itself, as its "test" `child`.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

const ROLE: &str = "ROLE";

/// In a child: what it is to do. `None` in the parent.
pub(crate) fn role() -> Option<String> {
    env::var(name(ROLE)).ok()
}

/// In a child: what else it was told.
pub(crate) fn told(what: &str) -> String {
    env::var(name(what)).unwrap()
}

fn name(what: &str) -> String {
    format!("FILE_STORE_TEST_{what}")
}

/// In a child: says something to the parent, on a line of its own, whatever the test harness has
/// printed before it.
pub(crate) fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{word}\n").unwrap();
    out.flush().unwrap();
}

/// In a child: waits for the parent to close the pipe.
pub(crate) fn wait() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// The `child` of a module.
    pub(crate) fn start(module: &str, role: &str, told: &[(&str, &str)]) -> Self {
        Self::spawn(
            Command::new(env::current_exe().unwrap()),
            module,
            role,
            told,
        )
    }

    /// With a shell's commands before it.
    #[cfg(unix)]
    pub(crate) fn start_after(
        module: &str,
        commands: &str,
        role: &str,
        told: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{commands}; exec \"$0\" \"$@\"")]);
        shell.arg(env::current_exe().unwrap());
        Self::spawn(shell, module, role, told)
    }

    fn spawn(mut command: Command, module: &str, role: &str, told: &[(&str, &str)]) -> Self {
        let (_, module) = module.split_once("::").unwrap();
        let told = told.iter().map(|(what, value)| (name(what), *value));
        let mut child = command
            .arg(format!("{module}::child"))
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .env(name(ROLE), role)
            .envs(told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            out: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads until it says so; `false` if it ends before.
    pub(crate) fn says(&mut self, word: &str) -> bool {
        self.find(|line| (line == word).then_some(())).is_some()
    }

    /// What is behind `word` on the next line that begins with it.
    pub(crate) fn answer(&mut self, word: &str) -> Option<String> {
        self.find(|line| line.strip_prefix(word).map(str::to_owned))
    }

    fn find<T>(&mut self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut lines = self.out.by_ref().lines().map_while(Result::ok);
        lines.find_map(|line| found(&line))
    }

    /// A line that it can read.
    pub(crate) fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Closes the pipe that it waits for.
    pub(crate) fn go(&mut self) {
        drop(self.stdin.take());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn succeeds(mut self) -> bool {
        self.go();
        // So that it is not stopped by a full pipe.
        self.out.read_to_end(&mut Vec::new()).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
