//! The clients that report to the ledger: below the token source, and below the layer.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bearer_auth::endpoint::{HttpClient, HttpError, ReqwestClient};
use bytes::Bytes;
use http::{Request, Response, Uri, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use tower::Service;

use crate::ledger::{Answer, Ledger};

/// A port where no server listens.
const REFUSING: &str = "http://127.0.0.1:1/";
/// Short, so that there soon is no connection at rest.
const IDLE: Duration = Duration::from_millis(300);

/// The default client of token requests, which reports to the ledger.
pub(crate) struct ToIdp {
    client: ReqwestClient,
    ledger: Arc<Ledger>,
    /// Connections are refused.
    refused: Arc<AtomicBool>,
}

impl ToIdp {
    pub(crate) fn new(ledger: Arc<Ledger>, refused: Arc<AtomicBool>) -> Self {
        Self {
            client: ReqwestClient::new(),
            ledger,
            refused,
        }
    }
}

impl HttpClient for ToIdp {
    async fn send(&self, mut request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let refused = self.refused.load(Ordering::Relaxed);
        if refused {
            *request.uri_mut() = Uri::from_static(REFUSING);
        }
        self.ledger.asks();
        let _asked = Asked(&self.ledger);
        let answer = self.client.send(request).await;
        self.ledger.answered(match &answer {
            Err(_) if refused => Answer::Soon { retry_after: None },
            answer => read(answer),
        });
        answer
    }
}

/// Reports a token request to the ledger as ended when it is dropped.
struct Asked<'a>(&'a Ledger);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.answered(Answer::Later);
    }
}

/// Classifies an answer as `docs/faults.md` does.
fn read(answer: &Result<Response<Bytes>, HttpError>) -> Answer {
    let Ok(answer) = answer else {
        return Answer::Later;
    };
    if answer.status().is_server_error() {
        let header = answer.headers().get("retry-after");
        let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        return Answer::Soon { retry_after };
    }
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    match (body["access_token"].as_str(), body["expires_in"].as_u64()) {
        (Some(token), Some(seconds)) => Answer::Token {
            value: token.to_owned(),
            lifetime: Duration::from_secs(seconds),
        },
        _ => Answer::Later,
    }
}

/// The client of the API, which reports to the ledger.
#[derive(Clone)]
pub(crate) struct ToApi {
    client: Client<HttpConnector, Full<Bytes>>,
    ledger: Arc<Ledger>,
    sent: Arc<AtomicU64>,
}

impl ToApi {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build_http(),
            ledger,
            sent: Arc::default(),
        }
    }

    /// How many requests have gone out.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Service<Request<Full<Bytes>>> for ToApi {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = hyper_util::client::legacy::ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.ledger
            .sent(token, BEGAN.get().unwrap_or_else(Instant::now));
        self.client.call(request)
    }
}

thread_local! {
    /// The start of the current poll in this thread. It is before the layer chooses a token, even if the
    /// thread is delayed after that.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A future that records the start of its polls.
pub(crate) struct Stamped<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Stamped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        BEGAN.set(Some(Instant::now()));
        self.0.as_mut().poll(cx)
    }
}
