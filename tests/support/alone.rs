//! Tests that need a process of their own, since what they set or look at is the whole process's: this
//! binary starts itself again, with that one test.

use std::{
    env,
    process::{Command, Stdio},
};

use super::process;

const ALONE: &str = "BEARER_AUTH_TEST_ALONE";

/// At the beginning of a test: goes on in a process of its own, and ends the test here.
macro_rules! alone {
    () => {{
        fn here() {}
        if $crate::support::alone::has_run(std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}
pub(crate) use alone;

/// Runs the test that `function` is in, unless this process is the one for it.
pub(crate) fn has_run(function: &str) -> bool {
    let (_, path) = function.split_once("::").unwrap();
    let path = path.strip_suffix("::here").unwrap();
    let test = path.replace("::{{closure}}", "");
    if env::var(ALONE).as_deref() == Ok(&test) {
        return false;
    }
    let ran = Command::new(env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, &test)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    let [out, err] = &said;
    // That there is no such test would be no failure.
    let passed = ran.status.success() && out.contains("1 passed");
    assert!(passed, "{test}, in a process of its own:\n{out}\n{err}");
    true
}

/// Whether nothing else runs in this process: it has one test, or is the child of one.
pub(crate) fn is_alone() -> bool {
    env::var_os(ALONE).is_some() || process::role().is_some()
}
