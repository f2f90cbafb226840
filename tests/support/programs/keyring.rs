//! A real keyring: Debian's `gnome-keyring`, on a message bus of its own, for a user of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;

use super::find;

const SERVICE: &str = "org.freedesktop.secrets";
/// Nobody starts anything on it by asking for it: no window that asks for a password, least of all.
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

/// Its processes are killed when it is dropped.
pub(crate) struct GnomeKeyring {
    address: String,
    daemon: Option<Process>,
    /// Says who comes to the bus, and goes.
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
    /// Empty and unlocked.
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
            // It says who comes.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = lines(&mut bus);
        let bus = Process(bus);
        let address = until(&mut said, "unix:");

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
        // The last that it says about itself.
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

    /// What its user's processes have in `DBUS_SESSION_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The keyring is gone, as after a crash.
    pub(crate) fn stop(&mut self) {
        self.daemon = None;
        self.seen();
    }

    /// It is there, again or for the first time, and unlocked.
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
            // It complains about memory that it cannot lock in a container.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut password = daemon.stdin.take().unwrap();
        password.write_all(b"password").unwrap();
        drop(password);
        self.daemon = Some(Process(daemon));
        self.seen();
    }

    /// Its owner locks it, and nobody is there who would unlock it when asked.
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

    /// All that it has written to the disk.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.home.path().join("data/keyrings")).unwrap();
        let files: Vec<_> = files
            .map(|f| fs::read(f.unwrap().path()).unwrap())
            .collect();
        assert!(!files.is_empty());
        files
    }

    /// Waits until the bus has seen it come or go.
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

/// The next line with these words.
fn until(lines: &mut Lines<BufReader<ChildStdout>>, words: &str) -> String {
    let mut lines = lines.map_while(Result::ok);
    let line = lines.find(|line| line.contains(words));
    line.unwrap_or_else(|| panic!("it has ended, and not said {words:?}"))
}

/// For its owner alone, as the keyring insists.
fn private(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
}
