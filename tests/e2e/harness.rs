//! Runs the tests with `libtest-mimic`. A test whose program is missing is ignored, not passed.
//!
//! Each module lists its tests with [`tests!`]. A test that is not listed is dead code, which is a lint
//! error.

use std::{collections::BTreeMap, env, process::ExitCode};

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Builder;

use crate::{programs::Program, support::process};

/// A test, or, with the name `child`, the code of a module's child processes.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    /// The function's path with its modules.
    pub(crate) path: &'static str,
    pub(crate) needs: &'static [Program],
    pub(crate) run: fn(),
}

/// Lists the tests of a module: `tests! { needs: [Redis]; one, #[threads(2)] another }`.
///
/// `threads` sets the worker threads of the runtime. Defaults to a current-thread runtime, as in
/// `#[tokio::test]`.
macro_rules! tests {
    (
        needs: [$($program:ident),+];
        $($(#[cfg($feature:meta)])? $(#[threads($threads:literal)])? $name:ident),+ $(,)?
    ) => {
        pub(crate) fn tests() -> Vec<$crate::harness::Test> {
            const NEEDS: &[$crate::programs::Program] =
                &[$($crate::programs::Program::$program),+];
            vec![$(
                $(#[cfg($feature)])?
                $crate::harness::Test {
                    path: concat!(module_path!(), "::", stringify!($name)),
                    needs: NEEDS,
                    run: || $crate::harness::run([$($threads)?].first().copied(), $name()),
                },
            )+]
        }
    };
}
pub(crate) use tests;

/// Runs a test on a runtime with so many worker threads, or on the current thread.
pub(crate) fn run(threads: Option<usize>, test: impl Future<Output = ()>) {
    let mut runtime = match threads {
        Some(_) => Builder::new_multi_thread(),
        None => Builder::new_current_thread(),
    };
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build().unwrap().block_on(test);
}

/// Runs the tests that the arguments select, or the child.
pub(crate) fn main(tests: &[Test]) -> ExitCode {
    if process::role().is_some() {
        child(tests);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let required = is_required();
    let mut reasons = BTreeMap::new();
    let mut trials = Vec::new();
    for test in tests.iter().filter(|test| !is_child(test)) {
        let missing = test.needs.iter().find_map(|program| {
            let reason = reasons.entry(*program).or_insert_with(|| program.missing());
            reason.clone()
        });
        let ignored = missing.is_some() && !required;
        let run = test.run;
        let trial = Trial::test(name(test), move || match missing {
            Some(reason) => Err(reason.into()),
            None => {
                run();
                Ok(())
            }
        });
        trials.push(trial.with_ignored_flag(ignored));
    }
    if !arguments.list {
        for reason in reasons.values().flatten() {
            let what = if required { "fail" } else { "are ignored" };
            eprintln!("tests {what}: {reason}");
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether a missing program is a failure.
fn is_required() -> bool {
    let ci = env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    ci && env::var("BEARER_AUTH_E2E").is_ok_and(|e2e| e2e == "required")
}

/// Runs the child that the first argument names.
fn child(tests: &[Test]) {
    let named = env::args().nth(1).unwrap();
    let child = tests.iter().find(|test| name(test) == named).unwrap();
    (child.run)();
}

fn is_child(test: &Test) -> bool {
    test.path.ends_with("::child")
}

fn name(test: &Test) -> &'static str {
    test.path.split_once("::").unwrap().1
}
