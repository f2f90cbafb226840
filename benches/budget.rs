//! The budget of a request: figures that are the same on every run, and their limits.
//!
//! `cargo bench --bench budget` fails when a limit is exceeded. valgrind counts the instructions: this
//! program starts itself again under it. Without valgrind these figures are left out, which is a failure
//! if `CI` is set.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark")]

mod support;

use std::{
    env,
    future::Future,
    io::ErrorKind,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Waker},
};

use bearer_auth::{
    BearerAuth, TokenCache, TokenResponse, resend::InMemory, resend::Off, source_fn,
};
use http::Request;
use tokio::sync::Semaphore;
use tower_layer::Layer as _;
use tower_service::Service;

use support::{stacks, table};

struct Line {
    what: &'static str,
    limit: f64,
    /// Returns `None` if it cannot be measured on this machine.
    measure: fn() -> Option<f64>,
}

/// The budget of a request with four headers and a token of 1 KiB. "The floor" sets the same header on
/// each request; with resending, it also copies each request.
///
/// The limits of the instructions are a tenth above the last measurement, since compilers and C libraries
/// differ. Otherwise the figures are the same on every run and on every x86-64 with AVX2, which valgrind
/// emulates. The tick of a clock adds less than one instruction to a request.
const BUDGET: [Line; 9] = [
    Line {
        what: "allocations over the floor",
        limit: 0.0,
        measure: || over(allocations, "ours", "floor"),
    },
    Line {
        what: "allocations over the floor, resending",
        limit: 0.0,
        measure: || over(allocations, "ours, resending", "floor and a copy"),
    },
    Line {
        what: "instructions over the floor",
        limit: 585.0,
        measure: || over(instructions, "ours", "floor").map(f64::round),
    },
    Line {
        what: "instructions over the floor, resending",
        limit: 740.0,
        measure: || over(instructions, "ours, resending", "floor and a copy").map(f64::round),
    },
    Line {
        what: "locked instructions over the floor",
        limit: 4.0,
        measure: || over(locked, "ours", "floor").map(f64::round),
    },
    Line {
        what: "locked instructions over the floor, resending",
        limit: 4.0,
        measure: || over(locked, "ours, resending", "floor and a copy").map(f64::round),
    },
    Line {
        what: "token requests for 1,000 callers",
        limit: 1.0,
        measure: token_requests,
    },
    Line {
        what: "bytes of a future, without the client's",
        limit: 40.0,
        measure: size_of_future::<Off>,
    },
    Line {
        what: "bytes of a future, without the client's, resending",
        limit: 240.0,
        measure: size_of_future::<InMemory>,
    },
];

/// The argument that makes this program send requests, and nothing else.
const SEND: &str = "--send";
const TIMES: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [first, stack, times] = &arguments[..]
        && first == SEND
    {
        work(stack)(times.parse().unwrap());
        return ExitCode::SUCCESS;
    }

    let figures = BUDGET.each_ref().map(|line| (line, (line.measure)()));
    let rows = figures.map(|(line, figure)| {
        let figure = figure.map_or("-".to_owned(), |figure| figure.to_string());
        (line.what.to_owned(), vec![figure, line.limit.to_string()])
    });
    table::print("The budget of a request", &["measured", "limit"], &rows);

    let mut code = ExitCode::SUCCESS;
    for (Line { what, limit, .. }, figure) in figures {
        match figure {
            Some(figure) if figure <= *limit => continue,
            Some(figure) => eprintln!("error: {what}: {figure} exceeds the limit of {limit}"),
            None if env::var_os("CI").is_none() => {
                eprintln!("warning: {what}: not measured: valgrind is not installed");
                continue;
            }
            None => eprintln!("error: {what}: not measured: valgrind is not installed"),
        }
        code = ExitCode::FAILURE;
    }
    code
}

fn work(stack: &str) -> Box<dyn FnMut(u64) + Send> {
    use stacks::{floor, layer, ours, work, work_with_a_copy};
    const TOKEN: usize = 1_024;
    const HEADERS: usize = 4;
    match stack {
        "floor" => work(floor(TOKEN), HEADERS),
        "ours" => work(ours(TOKEN), HEADERS),
        "floor and a copy" => work_with_a_copy(floor(TOKEN), HEADERS),
        "ours, resending" => work(layer(TOKEN).layer(stacks::Noop), HEADERS),
        _ => panic!("there is no stack {stack:?}"),
    }
}

/// How much more a request costs in one stack than in another.
fn over(count: fn(&str) -> Option<u64>, ours: &str, floor: &str) -> Option<f64> {
    let (ours, floor) = (count(ours)? as f64, count(floor)? as f64);
    Some((ours - floor) / TIMES as f64)
}

/// The allocations of [`TIMES`] requests.
fn allocations(stack: &str) -> Option<u64> {
    let mut work = work(stack);
    work(1);
    Some(allocation_counter::measure(|| work(TIMES)).count_total)
}

fn instructions(stack: &str) -> Option<u64> {
    under_valgrind(stack, 0)
}

/// Locked (atomic) instructions, such as those of a reference count: cheap for one thread, but they limit
/// how two threads scale.
fn locked(stack: &str) -> Option<u64> {
    under_valgrind(stack, 1)
}

/// Counts an event in [`TIMES`] requests: twice as many minus once as many, so that the start of the
/// program does not count.
fn under_valgrind(stack: &str, event: usize) -> Option<u64> {
    let [twice, once] = [2 * TIMES, TIMES].map(|times| collected(stack, times));
    Some(twice?[event] - once?[event])
}

/// The counts of instructions, and of those that lock the bus.
fn collected(stack: &str, times: u64) -> Option<Vec<u64>> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-bus=yes"]);
    valgrind.arg("--callgrind-out-file=/dev/null");
    valgrind.arg(env::current_exe().unwrap());
    valgrind.args([SEND, stack, &times.to_string()]);
    let output = match valgrind.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    let log = String::from_utf8_lossy(&output.stderr);
    let line = log.lines().find_map(|line| line.split_once("Collected : "));
    match line {
        Some((_, counts)) if output.status.success() => {
            let counts = counts.split_whitespace();
            Some(counts.map(|count| count.parse().unwrap()).collect())
        }
        _ => panic!("valgrind failed:\n{log}"),
    }
}

fn token_requests() -> Option<f64> {
    let (requests, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let cache = TokenCache::new(source_fn({
        let (requests, answer) = (requests.clone(), answer.clone());
        move |_| {
            let answer = answer.clone();
            requests.fetch_add(1, Ordering::Relaxed);
            async move {
                answer.acquire().await.unwrap().forget();
                TokenResponse::builder("token").build()
            }
        }
    }));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut callers: Vec<_> = (0..1_000).map(|_| Box::pin(cache.token())).collect();
    for caller in &mut callers {
        let poll = caller
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending(), "there is no token yet");
    }
    answer.add_permits(callers.len());
    for caller in callers {
        runtime.block_on(caller).unwrap();
    }
    Some(requests.load(Ordering::Relaxed).into())
}

/// The size of the response future over a client whose own future has no size.
fn size_of_future<P>() -> Option<f64>
where
    BearerAuth<stacks::Noop, P>: Service<Request<stacks::Body>>,
{
    type Future<P> = <BearerAuth<stacks::Noop, P> as Service<Request<stacks::Body>>>::Future;
    Some(size_of::<Future<P>>() as f64)
}
