//! Sends requests at planned times, whether or not earlier ones have ended.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bearer_auth::{BearerAuth, ServiceError};
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::time;
use tower::{ServiceExt as _, limit::ConcurrencyLimit};

use crate::{
    ledger::{Bound, Ledger},
    wire::{Stamped, ToApi},
};

/// The limit of requests at once below the layer. Requests that wait for a token do not count.
pub(crate) const AT_ONCE: usize = 256;
/// The bound of a request. The longest ones wait for a few token requests of two seconds each.
const LONGEST: Duration = Duration::from_secs(60);

/// The stack of a user, with [`ToApi`] as its client.
pub(crate) type Stack = BearerAuth<ConcurrencyLimit<ToApi>>;

pub(crate) struct Load {
    client: Stack,
    uri: Uri,
    every: Duration,
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
}

/// The outcomes of the requests.
#[derive(Default)]
pub(crate) struct Seen {
    started: AtomicU64,
    under_way: AtomicUsize,
    /// By kind: the excused ones, and the others.
    failures: Mutex<BTreeMap<String, (u64, u64)>>,
    excused: AtomicU64,
    /// The times from the planned start of a request until its answer or error.
    pub(crate) took: Histogram,
    /// How late requests started, which depends on the machine only.
    pub(crate) lag: Histogram,
}

impl Seen {
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn excused(&self) -> u64 {
        self.excused.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> BTreeMap<String, (u64, u64)> {
        let failures = self.failures.lock();
        failures.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Load {
    pub(crate) fn new(client: Stack, uri: Uri, rate: u32, ledger: Arc<Ledger>) -> Self {
        Self {
            client,
            uri,
            every: Duration::from_secs(1) / rate,
            ledger,
            seen: Arc::default(),
        }
    }

    pub(crate) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Starts requests until it is dropped.
    pub(crate) async fn run(&self) -> Infallible {
        let mut planned = Instant::now();
        loop {
            // All that are due: a tick of the timer covers several.
            while planned <= Instant::now() {
                self.start(planned);
                planned += self.every;
            }
            time::sleep_until(planned.into()).await;
        }
    }

    fn start(&self, planned: Instant) {
        let number = self.seen.started.fetch_add(1, Ordering::Relaxed);
        self.seen.under_way.fetch_add(1, Ordering::Relaxed);
        let (method, body) = match number % 4 {
            0 => (Method::POST, Bytes::from_static(b"an order")),
            _ => (Method::GET, Bytes::new()),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        let client = self.client.clone();
        let (ledger, seen) = (Arc::clone(&self.ledger), Arc::clone(&self.seen));
        let request = async move {
            let began = Instant::now();
            seen.lag.add(began - planned);
            let failure = failure(client.oneshot(request).await).await;
            seen.took.add(planned.elapsed());
            if let Some(kind) = failure {
                let excused = ledger.failed(&kind, began);
                seen.excused.fetch_add(excused.into(), Ordering::Relaxed);
                let failures = seen.failures.lock();
                let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
                let (good, bad) = failures.entry(kind).or_default();
                *(if excused { good } else { bad }) += 1;
            }
            seen.under_way.fetch_sub(1, Ordering::Relaxed);
        };
        tokio::spawn(Stamped(Box::pin(request)));
    }

    /// Waits until all requests have ended.
    pub(crate) async fn ends(&self) {
        let under_way = || self.seen.under_way.load(Ordering::Relaxed);
        let since = Instant::now();
        while under_way() > 0 && since.elapsed() < LONGEST {
            time::sleep(Duration::from_millis(5)).await;
        }
        if under_way() > 0 {
            let what = format!("{} requests have not ended after {LONGEST:?}", under_way());
            self.ledger.violate(Bound::AllEnd, what);
        }
    }
}

type Answer =
    Result<http::Response<hyper::body::Incoming>, ServiceError<hyper_util::client::legacy::Error>>;

/// Returns the kind of failure, if the answer is one.
async fn failure(answer: Answer) -> Option<String> {
    match answer {
        Ok(response) => {
            let status = response.status();
            // The connection is free for the next request once the body has been read.
            match response.into_body().collect().await {
                Ok(_) if status.is_success() => None,
                Ok(_) => Some(format!("HTTP {}", status.as_u16())),
                Err(_) => Some("the answer broke off".to_owned()),
            }
        }
        Err(ServiceError::Token(error)) => Some(format!("no token: {:?}", error.kind())),
        Err(ServiceError::Inner(error)) => Some(format!("the API's client: {error}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Durations with a resolution of an eighth, in a fixed amount of memory.
pub(crate) struct Histogram {
    buckets: [AtomicU64; 8 * 40],
    longest: AtomicU64,
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(micros, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(Self::bucket(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Eight buckets for each power of two.
    fn bucket(micros: u64) -> usize {
        let micros = micros + 8;
        let power = micros.ilog2() - 3;
        (8 * power + ((micros >> power) as u32 & 7)) as usize
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    /// The duration that this share of all durations is below.
    pub(crate) fn share(&self, share: f64) -> Duration {
        let counts: Vec<_> = self
            .buckets
            .iter()
            .map(|n| n.load(Ordering::Relaxed))
            .collect();
        let mut left = (counts.iter().sum::<u64>() as f64 * share) as u64;
        let bucket = counts.iter().position(|count| {
            let here = *count > left;
            left = left.saturating_sub(*count);
            here
        });
        bucket.map_or(self.longest(), |bucket| {
            let (power, eighth) = (bucket / 8, bucket as u64 % 8);
            let below = ((8 + eighth + 1) << power) - 8;
            Duration::from_micros(below).min(self.longest())
        })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; 8 * 40],
            longest: AtomicU64::new(0),
        }
    }
}
