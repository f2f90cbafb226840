//! Requests to a server on loopback through the clients of `hyper-util` and `reqwest`: the cost of the
//! layer, compared with a fixed header.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

mod support;

use std::{convert::Infallible, fmt::Debug, future::ready, time::Duration};

use bearer_auth::{BearerAuthLayer, TokenResponse, source_fn};
use http::{HeaderValue, Method, Request, Response, header::AUTHORIZATION};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tower::{Service, ServiceExt as _};
use tower_http::auth::AddAuthorizationLayer;
use tower_layer::Layer as _;

use support::{
    rounds::{Work, interleaved, ratios},
    stacks::{Body, token},
    table::{RANGE, print, range},
};

const ROUNDS: usize = 100;
const TIMES: u64 = 100;
const TOKEN: usize = 1_024;

fn main() {
    let server = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let api = format!("http://{}/", listener.local_addr().unwrap());
    server.spawn(serve(listener));

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut rows = Vec::new();
    for (client, mut contenders) in [
        ("hyper-util", hyper_util_clients(&runtime, &api)),
        ("reqwest", reqwest_clients(&runtime, &api)),
    ] {
        let figures = interleaved(ROUNDS, TIMES, &mut contenders);
        for (name, times) in ["no token", "a fixed header", "ours"].iter().zip(&figures) {
            let ratios = ratios(times, &figures[0]);
            rows.push((format!("{client}: {name}"), range(&ratios)));
        }
    }
    let title = "Time of a request over loopback, × that without a token";
    print(title, &RANGE, &rows);
}

fn hyper_util_clients<'a>(runtime: &'a Runtime, api: &'a str) -> [Work<'a>; 3] {
    let client = || Client::builder(TokioExecutor::new()).build_http::<Body>();
    let fixed = AddAuthorizationLayer::bearer(&token(TOKEN)).as_sensitive(true);
    let get = move || Request::get(api).body(Body::new()).unwrap();
    [
        sending(runtime, client(), get),
        sending(runtime, fixed.layer(client()), get),
        sending(runtime, layer(api).layer(client()), get),
    ]
}

fn reqwest_clients<'a>(runtime: &'a Runtime, api: &'a str) -> [Work<'a>; 3] {
    let client = || reqwest::Client::builder().no_proxy();
    let mut header = HeaderValue::try_from(format!("Bearer {}", token(TOKEN))).unwrap();
    header.set_sensitive(true);
    let fixed = client().default_headers([(AUTHORIZATION, header)].into_iter().collect());
    let get = move || reqwest::Request::new(Method::GET, api.parse().unwrap());
    [
        sending(runtime, client().build().unwrap(), get),
        sending(runtime, fixed.build().unwrap(), get),
        sending(runtime, layer(api).layer(client().build().unwrap()), get),
    ]
}

/// A layer with default settings: requests can be resent.
fn layer(api: &str) -> BearerAuthLayer {
    let source = source_fn(|_| {
        let lifetime = Duration::from_secs(3_600);
        ready(
            TokenResponse::builder(token(TOKEN))
                .expires_in(lifetime)
                .build(),
        )
    });
    BearerAuthLayer::for_api(api, source).unwrap()
}

/// Sends one request after the other on one connection.
fn sending<'a, S, R>(runtime: &'a Runtime, mut service: S, request: impl Fn() -> R + 'a) -> Work<'a>
where
    S: Service<R, Error: Debug> + 'a,
{
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                let service = service.ready().await.unwrap();
                drop(service.call(request()).await.unwrap());
            }
        });
    })
}

async fn serve(listener: TcpListener) {
    let answer = |_| ready(Ok::<_, Infallible>(Response::new(Body::new())));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connection = http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
