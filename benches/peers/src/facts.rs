//! What the table says about itself.

use std::{process::Command, thread};

use jiff::Timestamp;

use crate::BoxError;

/// Of this build.
const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a package, from the lock file.
pub fn version(package: &str) -> Result<&'static str, BoxError> {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != name).skip(1);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    let version = version.ok_or_else(|| format!("{package} is not in Cargo.lock"))?;
    Ok(version.trim_matches('"'))
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
