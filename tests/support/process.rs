//! Child processes: a test binary starts itself and runs the "test" `child` of a module.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

const ROLE: &str = "ROLE";

/// In a child: its role. `None` in the parent.
pub(crate) fn role() -> Option<String> {
    env::var(variable(ROLE)).ok()
}

/// In a child: the value of a named argument.
pub(crate) fn argument(key: &str) -> String {
    env::var(variable(key)).unwrap()
}

fn variable(key: &str) -> String {
    format!("FILE_STORE_TEST_{key}")
}

/// In a child: prints a word for the parent, on a line of its own after the test harness's output.
pub(crate) fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{word}\n").unwrap();
    out.flush().unwrap();
}

/// In a child: waits for the parent to close the pipe.
pub(crate) fn wait() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A child process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the `child` of a module.
    pub(crate) fn start(module: &str, role: &str, arguments: &[(&str, &str)]) -> Self {
        Self::spawn(
            Command::new(env::current_exe().unwrap()),
            module,
            role,
            arguments,
        )
    }

    /// Starts the `child` of a module after shell commands.
    #[cfg(unix)]
    pub(crate) fn start_after(
        module: &str,
        commands: &str,
        role: &str,
        arguments: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{commands}; exec \"$0\" \"$@\"")]);
        shell.arg(env::current_exe().unwrap());
        Self::spawn(shell, module, role, arguments)
    }

    fn spawn(mut command: Command, module: &str, role: &str, arguments: &[(&str, &str)]) -> Self {
        let (_, module) = module.split_once("::").unwrap();
        let arguments = arguments.iter().map(|(key, value)| (variable(key), *value));
        let mut child = command
            .arg(format!("{module}::child"))
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .env(variable(ROLE), role)
            .envs(arguments)
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

    /// Reads up to the line `word`; `false` if the child ends before.
    pub(crate) fn says(&mut self, word: &str) -> bool {
        self.find(|line| (line == word).then_some(())).is_some()
    }

    /// The rest of the next line that begins with `word`.
    pub(crate) fn answer(&mut self, word: &str) -> Option<String> {
        self.find(|line| line.strip_prefix(word).map(str::to_owned))
    }

    fn find<T>(&mut self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut lines = self.out.by_ref().lines().map_while(Result::ok);
        lines.find_map(|line| found(&line))
    }

    /// Writes a line to the child's stdin.
    pub(crate) fn tell(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Closes the child's stdin, which ends its [`wait`].
    pub(crate) fn go(&mut self) {
        drop(self.stdin.take());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the child exits; `true` on success.
    pub(crate) fn succeeds(mut self) -> bool {
        self.go();
        // Otherwise a full pipe blocks the child.
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
