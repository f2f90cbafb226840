//! Two threads send requests, and a third one refreshes the token a thousand times a second: how much
//! they slow each other down.
//!
//! The benchmark measures CPU time. It includes waiting for cache lines of other threads, and excludes
//! other processes.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod support;

use std::{
    future::ready,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bearer_auth::{
    BearerAuthLayer, TokenCache, TokenResponse, TokenSource, resend::Off, source_fn,
};
use http::Request;
use tower_layer::Layer as _;
use tower_service::Service;

use support::{
    rounds::{at_once, ratios},
    stacks::{API, Body, Noop, floor, new_token, work},
    table::{RANGE, print, range},
};

const ROUNDS: usize = 100;
const TIMES: u64 = 40_000;
const HEADERS: usize = 4;
const TOKEN: usize = 1_024;

#[derive(Default)]
struct Figures {
    /// The CPU time of a request in each round, with one thread and with two.
    times: [Vec<f64>; 2],
    /// How many processors the two threads had.
    processors: Vec<f64>,
}

impl Figures {
    fn measure<S>(&mut self, service: &S)
    where
        S: Service<Request<Body>> + Clone + Send + 'static,
    {
        for threads in [1, 2] {
            let workers = (0..threads).map(|_| work(service.clone(), HEADERS));
            let start = Instant::now();
            let time = at_once(TIMES, workers.collect());
            self.times[threads - 1].push(time);
            if threads == 2 {
                let busy = time * 1e-9 * (2 * TIMES) as f64;
                self.processors.push(busy / start.elapsed().as_secs_f64());
            }
        }
    }

    /// The speed of each of two threads, relative to one alone.
    fn scaling(&self) -> Vec<f64> {
        ratios(&self.times[0], &self.times[1])
    }
}

fn main() {
    let cache = TokenCache::new(source());
    let layer = BearerAuthLayer::builder(cache.clone()).api(API).resend(Off);
    let (ours, fixed) = (layer.build().unwrap().layer(Noop), floor(TOKEN));

    let [mut none, mut floor, mut still, mut refreshed] = [(); 4].map(|()| Figures::default());
    refreshing(&cache, || {}); // The first token.
    for _ in 0..ROUNDS {
        none.measure(&Noop);
        floor.measure(&fixed);
        still.measure(&ours);
        refreshing(&cache, || refreshed.measure(&ours));
    }

    let contenders = [
        ("no layer", &none),
        ("a fixed header", &floor),
        ("ours", &still),
        ("ours, refreshed every ms", &refreshed),
    ];
    let mut rows = Vec::new();
    for (at, threads) in ["1 thread", "2 threads"].iter().enumerate() {
        for (name, figures) in contenders {
            let ratios = ratios(&figures.times[at], &floor.times[at]);
            rows.push((format!("{threads}: {name}"), range(&ratios)));
        }
    }
    let title = "CPU time of a request, × that with a fixed header";
    print(title, &RANGE, &rows);

    let rows = contenders.map(|(name, figures)| {
        let share = ratios(&figures.scaling(), &none.scaling());
        (name.to_owned(), range(&share))
    });
    let title = "Speed of each of 2 threads relative to 1, × the same without a layer";
    print(title, &RANGE, &rows);

    // Threads that take turns on one processor do not slow each other down.
    let rows = contenders.map(|(name, figures)| (name.to_owned(), range(&figures.processors)));
    let title = "Processors for the 2 threads: below 1.6, the figures mean little";
    print(title, &RANGE, &rows);
}

/// Runs `what` while the token is refreshed every millisecond.
fn refreshing(cache: &TokenCache, what: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let refresh = || runtime.block_on(cache.refresh()).unwrap();
    refresh();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                refresh();
                thread::sleep(Duration::from_millis(1));
            }
        });
        what();
        done.store(true, Ordering::Relaxed);
    });
}

/// Answers at once, with another token each time.
fn source() -> impl TokenSource {
    source_fn(|_| {
        let token = TokenResponse::builder(new_token(TOKEN));
        ready(token.expires_in(Duration::from_secs(3_600)).build())
    })
}
