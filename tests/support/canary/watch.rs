//! Collects all output: `tracing` and `log` at TRACE from all targets, `metrics`, panic messages, and
//! `Debug` and `Display` of the values that a test passes to its [`Watch`].
//!
//! The collectors are global, so each test has [a process of its own](crate::support::alone).

use std::{
    any::type_name,
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    fmt::{Debug, Display, Write as _},
    panic,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bearer_auth::{Event, store::StoreError};
use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::canaries::{Canaries, Secret};
use crate::support::{alone::is_alone, errors};

/// A piece of output.
#[derive(Clone)]
struct Record {
    /// `tracing hyper_util::client::legacy::pool`, `Debug of AccessToken`, …
    place: String,
    text: String,
}

static RECORDS: Mutex<Vec<Record>> = Mutex::new(Vec::new());

fn records() -> MutexGuard<'static, Vec<Record>> {
    RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(place: impl Into<String>, text: impl Into<String>) {
    let (place, text) = (place.into(), text.into());
    records().push(Record { place, text });
}

/// Collects `tracing`: new spans, fields recorded later, and events.
struct Tracing;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    /// Also records the causes of errors.
    fn record_error(&mut self, field: &Field, value: &(dyn StdError + 'static)) {
        write!(self.0, " {}={}", field.name(), errors::text(value)).unwrap();
    }
}

impl Tracing {
    fn record(metadata: &Metadata<'_>, fields: impl FnOnce(&mut Line)) {
        let mut line = Line(metadata.name().to_owned());
        fields(&mut line);
        record(format!("tracing {}", metadata.target()), line.0);
    }
}

impl Subscriber for Tracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::record(attributes.metadata(), |line| attributes.record(line));
        span::Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line("recorded".to_owned());
        values.record(&mut line);
        record("tracing span", line.0);
    }

    fn event(&self, event: &tracing::Event<'_>) {
        Self::record(event.metadata(), |line| event.record(line));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Collects `log`, which reqwest, rustls and webbrowser use.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, logged: &log::Record<'_>) {
        record(
            format!("log {}", logged.target()),
            logged.args().to_string(),
        );
    }

    fn flush(&self) {}
}

/// The beginning of an intended panic message, which is not printed.
pub(crate) const ON_PURPOSE: &str = "this panics on purpose";

/// Installs the collectors, once per process.
fn install() -> &'static Snapshotter {
    static METRICS: OnceLock<Snapshotter> = OnceLock::new();
    METRICS.get_or_init(|| {
        tracing::subscriber::set_global_default(Tracing).unwrap();
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            let file = panicked
                .location()
                .map_or("nowhere", |location| location.file());
            record(format!("panic in {file}"), panicked.to_string());
            let said = panicked.payload().downcast_ref::<String>();
            if !said.is_some_and(|said| said.starts_with(ON_PURPOSE)) {
                usual(panicked);
            }
        }));
        snapshotter
    })
}

/// The watch of one test. [`end`](Self::end) searches all output since [`new`](Self::new).
pub(crate) struct Watch {
    canaries: Mutex<Canaries>,
    metrics: &'static Snapshotter,
}

impl Watch {
    pub(crate) async fn new() -> Self {
        assert!(is_alone(), "the test does not begin with `alone!()`");
        let metrics = install();
        records().clear();
        Self {
            canaries: Mutex::new(Canaries::new()),
            metrics,
        }
    }

    /// Adds a secret that is created while the test runs.
    pub(crate) fn secret(&self, secret: Secret, value: impl AsRef<[u8]>) {
        self.canaries.lock().unwrap().add(secret, value.as_ref());
    }

    pub(crate) fn text(&self, place: &str, text: impl Into<String>) {
        record(place, text);
    }

    /// Records `Debug`, plain and pretty.
    pub(crate) fn debug<T: Debug + ?Sized>(&self, value: &T) {
        let name = name_of::<T>();
        record(format!("Debug of {name}"), format!("{value:?}\n{value:#?}"));
    }

    /// Records `Debug` and `Display`.
    pub(crate) fn both<T: Debug + Display>(&self, value: &T) {
        self.debug(value);
        let name = name_of::<T>();
        record(format!("Display of {name}"), format!("{value}\n{value:#}"));
    }

    /// Records an error with all its causes.
    pub(crate) fn error<E: StdError + 'static>(&self, error: &E) {
        self.both(error);
        record(format!("causes of {}", name_of::<E>()), errors::text(error));
    }

    /// Records an event of a cache, for `on_event`.
    pub(crate) fn event(event: &Event<'_>) {
        record("Debug of Event", format!("{event:?}\n{event:#?}"));
    }

    /// Records a store error of a session, for `on_store_error`.
    pub(crate) fn store_error(error: &StoreError) {
        record("Debug of StoreError", format!("{error:?}\n{error:#?}"));
        record("Display of StoreError", format!("{error}\n{}", error.cause));
        record("causes of StoreError", errors::text(error));
    }

    /// Returns the secrets in a content that may contain some.
    pub(crate) fn search(&self, content: &[u8]) -> BTreeSet<Secret> {
        let found = self.canaries.lock().unwrap().search(content);
        found.into_iter().map(|found| found.secret).collect()
    }

    /// Returns the places of output that begin with `prefix` (such as `Debug of `), without it.
    pub(crate) fn places(prefix: &str) -> BTreeSet<String> {
        let records = records();
        let places = records.iter().map(|record| record.place.as_str());
        let rest = places.filter_map(|place| place.strip_prefix(prefix));
        rest.map(str::to_owned).collect()
    }

    /// Asserts that the collectors work: each of these places has output.
    #[track_caller]
    pub(crate) fn heard(&self, places: &[&str]) {
        self.count();
        for place in places {
            let heard = records()
                .iter()
                .any(|record| record.place.starts_with(place));
            let places = Self::places("");
            assert!(heard, "no output of {place}, only of {places:#?}");
        }
    }

    fn count(&self) {
        for (key, _, _, value) in self.metrics.snapshot().into_vec() {
            record("metrics", format!("{key:?} {value:?}"));
        }
    }

    /// Asserts that no output shows a secret.
    #[track_caller]
    pub(crate) fn end(self) {
        self.end_but(&[]);
    }

    /// Asserts that no output shows a secret, except the `known` ones at their places. Each known
    /// exposure must occur.
    #[track_caller]
    pub(crate) fn end_but(self, known: &[(Secret, &str)]) {
        self.count();
        let records = std::mem::take(&mut *records());
        // Most output is repeated: search each text once.
        let texts: BTreeMap<_, _> = records.iter().map(|r| ((&r.text, &r.place), r)).collect();
        let canaries = self.canaries.lock().unwrap();
        // By place: the secrets, and an example of each encoding.
        let mut leaks = BTreeMap::<_, (BTreeSet<_>, BTreeMap<_, _>)>::new();
        let mut seen = BTreeSet::new();
        for record in texts.values() {
            // A panic in a test stands for a panic in the application, which controls the message.
            if record.place.starts_with("panic in tests") {
                continue;
            }
            for found in canaries.search(record.text.as_bytes()) {
                let known = known.iter().position(|(secret, place)| {
                    *secret == found.secret && record.place.contains(place)
                });
                seen.extend(known);
                if known.is_none() && !is_configuration(found.secret, &record.place) {
                    let (secrets, examples) = leaks.entry(&record.place).or_default();
                    secrets.insert(found.secret);
                    examples.entry(found.shape).or_insert(&record.text);
                }
            }
        }
        let mut report = String::new();
        for (place, (secrets, examples)) in &leaks {
            writeln!(report, "{place}: {secrets:?}").unwrap();
            // The example with the fewest encodings.
            let example = examples.iter().min_by_key(|(shape, _)| shape.len());
            if let Some((shape, text)) = example {
                let text: String = text.chars().take(1_000).collect();
                writeln!(report, "{shape}: {text}\n").unwrap();
            }
        }
        assert!(leaks.is_empty(), "{} leaks:\n\n{report}", leaks.len());
        let places: BTreeSet<_> = records.iter().map(|r| &r.place).collect();
        for (at, known) in known.iter().enumerate() {
            assert!(
                seen.contains(&at),
                "known exposure is gone: {known:?}; output of {places:#?}"
            );
        }
    }
}

/// The client id identifies configurations, and may show only there.
fn is_configuration(secret: Secret, place: &str) -> bool {
    const SHOWING: [&str; 7] = [
        "AuthorizationCode",
        "AuthorizationCodeBuilder",
        "ClientCredentials",
        "ClientCredentialsBuilder",
        "JwtBearer",
        "JwtBearerBuilder",
        "Session",
    ];
    let shown = place.strip_prefix("Debug of ");
    secret == Secret::ClientId && shown.is_some_and(|name| SHOWING.contains(&name))
}

/// The name of a type, without path and parameters.
pub(crate) fn name_of<T: ?Sized>() -> &'static str {
    let name = type_name::<T>().trim_start_matches('&');
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}
