//! Facts about the measurement, for the table.

use std::{process::Command, thread};

use jiff::Timestamp;

use crate::BoxError;

/// The lock file of this build.
const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a package, from the lock file.
pub fn version(package: &str) -> Result<&'static str, BoxError> {
    // If there are several versions, that of this package's own dependency.
    let several = format!(" \"{package} ");
    let ours = entry("peers").find_map(|line| line.strip_prefix(&several));
    let version = ours.or_else(|| entry(package).find_map(|line| line.strip_prefix("version = ")));
    let version = version.ok_or_else(|| format!("{package} is not in Cargo.lock"))?;
    Ok(version.trim_matches(['"', ',']))
}

fn entry(package: &str) -> impl Iterator<Item = &'static str> {
    let name = format!("name = \"{package}\"");
    let lines = LOCK.lines().skip_while(move |line| *line != name);
    lines.take_while(|line| !line.is_empty())
}

/// Date, machine, compiler.
pub fn circumstances() -> Result<String, BoxError> {
    let rustc = Command::new("rustc").arg("--version").output()?.stdout;
    Ok(format!(
        "{}, {} cores, {}",
        Timestamp::now().strftime("%Y-%m-%d"),
        thread::available_parallelism()?,
        String::from_utf8(rustc)?.trim()
    ))
}
