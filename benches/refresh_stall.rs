//! Two thousand requests a second, whether or not earlier ones are answered, while tokens expire and the
//! token endpoint is slow: how many requests wait, compared with a cache that fetches a token when the
//! last one has expired.
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures time, and paces its load"
)]

mod support;

use std::{sync::Arc, time::Duration};

use bearer_auth::{BearerAuthLayer, Error, TokenResponse, resend::Off, source_fn};
use tokio::{
    runtime::Runtime,
    sync::Mutex,
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use support::{
    rounds::percentile,
    stacks::{API, Noop, new_token, request},
    table::print,
};

const EVERY: Duration = Duration::from_micros(500);
/// Longer than a second, which is the spacing of token requests: a shorter token is not refreshed ahead.
const LIFETIME: Duration = Duration::from_secs(2);
const LIFETIMES: u32 = 6;
/// The response time of the token endpoint.
const ANSWERS_IN: Duration = Duration::from_millis(50);
/// A longer time counts as a wait, in milliseconds.
const WAIT: f64 = 5.0;

fn main() {
    let runtime = Runtime::new().unwrap();
    // At the same time, so that the machine slows all of them down alike.
    let (none, ours, lazy) =
        runtime.block_on(async { tokio::join!(load(|| async {}), ours(), lazy()) });
    let contenders = [("no token", none), ("ours", ours), ("a lazy cache", lazy)];
    let rows = contenders.map(|(name, waits)| {
        let waited = waits.iter().filter(|wait| **wait > WAIT).count();
        let share = 100.0 * waited as f64 / waits.len() as f64;
        let [most, longest] = [99, 100].map(|percent| percentile(&waits, percent));
        let mut cells = vec![waits.len().to_string(), format!("{share:.2} %")];
        cells.extend([most, longest].map(|wait| format!("{wait:.2}")));
        (name.to_owned(), cells)
    });
    let title = "Time until a request is sent, after the first token, in ms";
    print(
        title,
        &["requests", "over 5 ms", "99 % below", "longest"],
        &rows,
    );
}

async fn ours() -> Vec<f64> {
    let layer = BearerAuthLayer::builder(source_fn(|_| fetch()))
        .api(API)
        .resend(Off);
    let client = layer.build().unwrap().layer(Noop);
    load(|| {
        let response = client.clone().oneshot(request(4));
        async { drop(response.await.unwrap()) }
    })
    .await
}

/// A simple hand-written cache.
async fn lazy() -> Vec<f64> {
    let cache = Arc::new(Mutex::new(None::<(TokenResponse, Instant)>));
    load(|| {
        let cache = cache.clone();
        async move {
            let mut token = cache.lock().await;
            let asked = Instant::now();
            if token.as_ref().is_none_or(|(_, end)| asked >= *end) {
                *token = Some((fetch().await.unwrap(), asked + LIFETIME));
            }
        }
    })
    .await
}

async fn fetch() -> Result<TokenResponse, Error> {
    sleep(ANSWERS_IN).await;
    TokenResponse::builder(new_token(1_024))
        .expires_in(LIFETIME)
        .build()
}

/// The milliseconds from the planned time of each request, except the first, until it was done.
async fn load<F>(send: impl Fn() -> F) -> Vec<f64>
where
    F: Future<Output = ()> + Send + 'static,
{
    send().await;
    let mut ticks = interval(EVERY);
    let mut sent = JoinSet::new();
    let end = Instant::now() + LIFETIMES * LIFETIME;
    loop {
        let due = ticks.tick().await;
        if due >= end {
            return sent.join_all().await;
        }
        let sending = send();
        sent.spawn(async move {
            sending.await;
            due.elapsed().as_secs_f64() * 1e3
        });
    }
}
