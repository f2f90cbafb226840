//! The cost of single steps of the request path, and of alternatives to them. Each is measured as the
//! floor plus the step, against the floor alone.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod support;

use std::{
    hint::black_box,
    sync::{Arc, Mutex, RwLock},
    time::{Instant, SystemTime},
};

use arc_swap::{ArcSwap, Cache};
use http::header::AUTHORIZATION;
use support::{
    rounds::{Work, interleaved, median, ratios},
    stacks::{drive, floor, request},
    table,
};

const ROUNDS: usize = 300;
const TIMES: u64 = 1_000;

fn main() {
    let rows: Vec<_> = steps(0)
        .into_iter()
        .zip(steps(4))
        .map(|((name, none), (_, four))| {
            (
                name.to_owned(),
                [none, four].map(|share| format!("{share:.1}")).to_vec(),
            )
        })
        .collect();
    let columns = ["no header", "4 headers"];
    table::print("The cost of a step, in % of the floor", &columns, &rows);
}

type Step<'a> = Box<dyn FnMut() + 'a>;

/// Measures the cost of each step.
fn steps(headers: usize) -> Vec<(&'static str, f64)> {
    let request = request(headers);
    let swap = Arc::new(ArcSwap::from_pointee(0u64));
    let mut cached = Cache::new(Arc::clone(&swap));
    let shared = Arc::new(0u64);
    let (mutex, rwlock) = (Mutex::new(0u64), RwLock::new(0u64));
    let uri = request.uri().clone();
    let mut full = request.headers().clone();
    full.insert(AUTHORIZATION, "Bearer t".parse().unwrap());

    let mut steps: Vec<(_, Step<'_>)> = vec![
        ("nothing (the measuring error)", Box::new(|| {})),
        #[cfg(target_os = "linux")]
        (
            "one coarse clock",
            Box::new(|| clock(rustix::time::ClockId::MonotonicCoarse)),
        ),
        #[cfg(target_os = "linux")]
        (
            "two coarse clocks",
            Box::new(|| {
                clock(rustix::time::ClockId::MonotonicCoarse);
                clock(rustix::time::ClockId::RealtimeCoarse);
            }),
        ),
        (
            "Instant::now",
            Box::new(|| {
                black_box(Instant::now());
            }),
        ),
        (
            "SystemTime::now",
            Box::new(|| {
                black_box(SystemTime::now());
            }),
        ),
        (
            "ArcSwap::load",
            Box::new(|| {
                black_box(**swap.load());
            }),
        ),
        (
            "arc_swap::Cache::load",
            Box::new(|| {
                black_box(**cached.load());
            }),
        ),
        (
            "RwLock::read",
            Box::new(|| {
                black_box(*rwlock.read().unwrap());
            }),
        ),
        (
            "Mutex::lock",
            Box::new(|| {
                black_box(*mutex.lock().unwrap());
            }),
        ),
        (
            "Arc::clone and drop",
            Box::new(|| drop(black_box(Arc::clone(&shared)))),
        ),
        (
            "Box::new and drop",
            Box::new(|| drop(black_box(Box::new([0u8; 128])))),
        ),
        (
            "Uri: host and port",
            Box::new(|| {
                let uri = black_box(&uri);
                black_box((uri.host(), uri.port_u16(), uri.path()));
            }),
        ),
        (
            "Uri: authority as a string",
            Box::new(|| {
                let uri = black_box(&uri);
                black_box((
                    uri.authority().map(http::uri::Authority::as_str),
                    uri.path(),
                ));
            }),
        ),
        (
            "HeaderMap::contains_key",
            Box::new(|| {
                black_box(full.contains_key(AUTHORIZATION));
            }),
        ),
    ];
    steps
        .iter_mut()
        .map(|(name, step)| {
            let (mut with, mut without) = (floor(1024), floor(1024));
            let mut contenders: [Work<'_>; 2] = [
                Box::new(|times| drive(&mut without, &request, times)),
                Box::new(|times| {
                    for _ in 0..times {
                        drive(&mut with, &request, 1);
                        step();
                    }
                }),
            ];
            let figures = interleaved(ROUNDS, TIMES, &mut contenders);
            let ratio = median(&ratios(&figures[1], &figures[0]));
            (*name, (ratio - 1.0) * 100.0)
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn clock(id: rustix::time::ClockId) {
    black_box(rustix::time::clock_gettime(id));
}
