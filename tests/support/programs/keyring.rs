//! `gnome-keyring` on a message bus of its own, with a home directory of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;

use super::find;

const SERVICE: &str = "org.freedesktop.secrets";
/// Without service activation: a request must not start a password dialog.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>"#;

/// A running keyring. Its processes are killed when it is dropped.
pub(crate) struct GnomeKeyring {
    address: String,
    daemon: Option<Process>,
    /// Reports when the keyring joins or leaves the bus.
    seen: Lines<BufReader<ChildStdout>>,
    _monitor: Process,
    _bus: Process,
    home: TempDir,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl GnomeKeyring {
    /// Starts an empty, unlocked keyring.
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("bus.conf");
        let path = home.path().join("bus");
        fs::write(&config, BUS.replace("{path}", path.to_str().unwrap())).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(config)
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It logs every client.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = lines(&mut bus);
        let bus = Process(bus);
        let address = until(&mut output, "unix:");

        let rule = format!(
            "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{SERVICE}'"
        );
        let mut monitor = Command::new("dbus-monitor")
            .args(["--address", &address, &rule])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = lines(&mut monitor);
        let monitor = Process(monitor);
        // The last line about the monitor itself.
        until(&mut seen, "member=NameLost");
        let mut keyring = Self {
            address,
            daemon: None,
            seen,
            _monitor: monitor,
            _bus: bus,
            home,
        };
        keyring.go_on();
        keyring
    }

    /// The value of `DBUS_SESSION_BUS_ADDRESS` for its user's processes.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Kills the keyring, as in a crash.
    pub(crate) fn stop(&mut self) {
        self.daemon = None;
        self.seen();
    }

    /// Starts the keyring (again), unlocked.
    pub(crate) fn go_on(&mut self) {
        let home = self.home.path();
        let run = home.join("run");
        private(&run);
        let mut daemon = Command::new("gnome-keyring-daemon")
            .args(["--foreground", "--unlock", "--components=secrets"])
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", run)
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("GNOME_KEYRING_CONTROL")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // It warns about memory that it cannot lock in a container.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut password = daemon.stdin.take().unwrap();
        password.write_all(b"password").unwrap();
        drop(password);
        self.daemon = Some(Process(daemon));
        self.seen();
    }

    /// Locks the keyring. No user can answer a prompt to unlock it.
    pub(crate) fn lock(&self) {
        let sent = Command::new("dbus-send")
            .arg(format!("--bus={}", self.address))
            .arg(format!("--dest={SERVICE}"))
            .args(["--print-reply", "/org/freedesktop/secrets"])
            .arg("org.freedesktop.Secret.Service.Lock")
            .arg("array:objpath:/org/freedesktop/secrets/collection/login")
            .output()
            .unwrap();
        assert!(sent.status.success(), "{sent:?}");
    }

    /// The content of the keyring's files.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.home.path().join("data/keyrings")).unwrap();
        let files: Vec<_> = files
            .map(|f| fs::read(f.unwrap().path()).unwrap())
            .collect();
        assert!(!files.is_empty());
        files
    }

    /// Waits until the keyring joins or leaves the bus.
    fn seen(&mut self) {
        until(&mut self.seen, &format!("\"{SERVICE}\""));
    }
}

pub(crate) fn missing() -> Option<String> {
    const PROGRAMS: [&str; 4] = [
        "gnome-keyring-daemon",
        "dbus-daemon",
        "dbus-monitor",
        "dbus-send",
    ];
    let missing = PROGRAMS.iter().find(|program| find(&[program]).is_none())?;
    Some(format!(
        "there is no `{missing}` in the PATH: `apt-get install gnome-keyring dbus dbus-bin`"
    ))
}

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

/// Returns the next line that contains `text`.
fn until(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    let mut lines = lines.map_while(Result::ok);
    let line = lines.find(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("the output ended without {text:?}"))
}

/// Creates a directory with mode 0700, which the keyring requires.
fn private(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
}
