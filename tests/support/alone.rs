//! Runs a test in a process of its own, because it sets or reads state of the whole process. The test
//! binary starts itself again with that one test.

use std::{
    env,
    process::{Command, Stdio},
};

use super::process;

const ALONE: &str = "BEARER_AUTH_TEST_ALONE";

/// At the beginning of a test: runs the test in a process of its own, and returns from it here.
macro_rules! alone {
    () => {{
        fn here() {}
        if $crate::support::alone::has_run(std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}
pub(crate) use alone;

/// Runs the test that contains `function` in a child process. Returns `false` in that child.
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
    let output = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let [out, err] = &output;
    // The count: the child also succeeds if it finds no such test.
    let passed = ran.status.success() && out.contains("1 passed");
    assert!(passed, "{test}, in a process of its own:\n{out}\n{err}");
    true
}

/// Whether no other test runs in this process: it runs [`alone`], or is the child of a test.
pub(crate) fn is_alone() -> bool {
    env::var_os(ALONE).is_some() || process::role().is_some()
}
