//! Callers without a cached token: how many token requests they cause, and how soon all of them have sent
//! their requests once the token arrives. The comparison waits for a bare `tokio::sync::watch` and sends
//! a fixed header.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures time, and paces its load"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bearer_auth::{BearerAuthLayer, TokenResponse, TokenSource, resend::Off, source_fn};
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use support::{
    rounds::{median, ratios},
    stacks::{API, Noop, floor, request, token},
    table::{RANGE, print, range},
};

const ROUNDS: usize = 30;
const TOKEN: usize = 1_024;

fn main() {
    let runtime = Runtime::new().unwrap();
    let mut rows = Vec::new();
    for callers in [1, 100, 10_000] {
        let (mut ours, mut bare, mut requests) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (time, made) = runtime.block_on(first_token(callers));
            ours.push(time);
            requests = requests.max(made);
            bare.push(runtime.block_on(bare_watch(callers)));
        }
        let mut cells = vec![requests.to_string(), format!("{:.3}", median(&bare))];
        cells.extend(range(&ours));
        cells.push(format!("{:.2}", median(&ratios(&ours, &bare))));
        rows.push((format!("callers: {callers}"), cells));
    }
    let [median, below, above] = RANGE;
    let columns = [
        "token requests",
        "bare watch",
        median,
        below,
        above,
        "× bare watch",
    ];
    let title = "From the token's arrival until the last caller has sent its request, in ms";
    print(title, &columns, &rows);
}

/// The milliseconds, and the number of token requests.
async fn first_token(callers: usize) -> (f64, usize) {
    let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let source = source(requests.clone(), answer.clone());
    let auth = BearerAuthLayer::builder(source).api(API).resend(Off);
    let client = auth.build().unwrap().layer(Noop);
    let last = last_of(callers, || {
        let request = client.clone().oneshot(request(4));
        async { drop(request.await.unwrap()) }
    });
    let time = last.after(|| answer.add_permits(1)).await;
    (time, requests.load(Ordering::Relaxed))
}

async fn bare_watch(callers: usize) -> f64 {
    let (sender, receiver) = watch::channel(());
    let client = floor(TOKEN);
    let last = last_of(callers, || {
        let mut receiver = receiver.clone();
        let request = client.clone().oneshot(request(4));
        async move {
            receiver.changed().await.unwrap();
            drop(request.await.unwrap());
        }
    });
    last.after(|| sender.send(()).unwrap()).await
}

/// A source that answers when there is a permit.
fn source(requests: Arc<AtomicUsize>, answer: Arc<Semaphore>) -> impl TokenSource {
    source_fn(move |_| {
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = answer.clone();
        async move {
            answer.acquire().await.unwrap().forget();
            TokenResponse::builder(token(TOKEN)).build()
        }
    })
}

/// Tasks that wait. Each returns the time at which it was done.
struct Waiting(JoinSet<Instant>);

fn last_of<F>(callers: usize, caller: impl Fn() -> F) -> Waiting
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = (0..callers).map(|_| {
        let caller = caller();
        async move {
            caller.await;
            Instant::now()
        }
    });
    Waiting(tasks.collect())
}

impl Waiting {
    /// Calls `release`. Returns the milliseconds until the last task is done.
    async fn after(self, release: impl FnOnce()) -> f64 {
        // Until all tasks wait.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = Instant::now();
        release();
        let last = self.0.join_all().await.into_iter().max().unwrap();
        (last - start).as_secs_f64() * 1e3
    }
}
