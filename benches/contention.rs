//! Two threads that send requests, and a third that renews the token a thousand times a second:
//! what they take from each other.
//!
//! What is measured is CPU time: threads that wait for each other's cache lines pay with it, and
//! what else the machine does is not in it.
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
    table::{SPREAD, print, spread},
};

const ROUNDS: usize = 100;
const TIMES: u64 = 40_000;
const HEADERS: usize = 4;
const TOKEN: usize = 1_024;

#[derive(Default)]
struct Figures {
    /// The CPU time of a request in each round, with one thread and with two.
    times: [Vec<f64>; 2],
    /// How many processors there were for two.
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

    /// How much of a thread's speed is left when there are two.
    fn scaling(&self) -> Vec<f64> {
        ratios(&self.times[0], &self.times[1])
    }
}

fn main() {
    let cache = TokenCache::new(source());
    let layer = BearerAuthLayer::builder(cache.clone()).api(API).resend(Off);
    let (ours, fixed) = (layer.build().unwrap().layer(Noop), floor(TOKEN));

    let [mut none, mut floor, mut still, mut renewed] = [(); 4].map(|()| Figures::default());
    renewing(&cache, || {}); // The first token.
    for _ in 0..ROUNDS {
        none.measure(&Noop);
        floor.measure(&fixed);
        still.measure(&ours);
        renewing(&cache, || renewed.measure(&ours));
    }

    let contenders = [
        ("no layer", &none),
        ("a fixed header", &floor),
        ("ours", &still),
        ("ours, renewed every ms", &renewed),
    ];
    let mut rows = Vec::new();
    for (at, threads) in ["1 thread", "2 threads"].iter().enumerate() {
        for (name, figures) in contenders {
            let ratios = ratios(&figures.times[at], &floor.times[at]);
            rows.push((format!("{threads}: {name}"), spread(&ratios)));
        }
    }
    let title = "CPU time of a request, × that with a fixed header";
    print(title, &SPREAD, &rows);

    let rows = contenders.map(|(name, figures)| {
        let share = ratios(&figures.scaling(), &none.scaling());
        (name.to_owned(), spread(&share))
    });
    let title = "From 1 thread to 2: speed of each, × what no layer keeps of it";
    print(title, &SPREAD, &rows);

    // Threads that take turns on one processor take nothing from each other.
    let rows = contenders.map(|(name, figures)| (name.to_owned(), spread(&figures.processors)));
    let title = "Processors that 2 threads had: with less than 1.6, the figures say little";
    print(title, &SPREAD, &rows);
}

/// Does `what` while the token is renewed every millisecond.
fn renewing(cache: &TokenCache, what: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let renew = || runtime.block_on(cache.refresh()).unwrap();
    renew();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renew();
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
