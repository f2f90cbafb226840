//! Everything that is said: to `tracing` and to `log` at TRACE by whomever, to `metrics`, by panics,
//! and by `Debug` and `Display` of what a test shows to its [`Watch`].
//!
//! What collects is the process's, so each test has [a process of its own](crate::support::alone).

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

/// Something that was said.
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

/// All that `tracing` has: spans when they begin and when a field is added, and events.
struct Tracing;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    /// Errors' causes are fields, too.
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

/// All that `log` has: of reqwest, rustls and webbrowser, say.
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

/// How a panic begins that is part of a test, and need not be printed.
pub(crate) const ON_PURPOSE: &str = "this panics on purpose";

/// Once for this program.
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

/// One test's: what is said until it [ends](Self::end) is looked through then.
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

    /// A secret that was made just now.
    pub(crate) fn secret(&self, secret: Secret, value: impl AsRef<[u8]>) {
        self.canaries.lock().unwrap().add(secret, value.as_ref());
    }

    pub(crate) fn text(&self, place: &str, text: impl Into<String>) {
        record(place, text);
    }

    /// `Debug`, both ways.
    pub(crate) fn debug<T: Debug + ?Sized>(&self, value: &T) {
        let name = name_of::<T>();
        record(format!("Debug of {name}"), format!("{value:?}\n{value:#?}"));
    }

    /// `Debug` and `Display`.
    pub(crate) fn both<T: Debug + Display>(&self, value: &T) {
        self.debug(value);
        let name = name_of::<T>();
        record(format!("Display of {name}"), format!("{value}\n{value:#}"));
    }

    /// With all its causes.
    pub(crate) fn error<E: StdError + 'static>(&self, error: &E) {
        self.both(error);
        record(format!("causes of {}", name_of::<E>()), errors::text(error));
    }

    /// For a cache: `on_event`.
    pub(crate) fn event(event: &Event<'_>) {
        record("Debug of Event", format!("{event:?}\n{event:#?}"));
    }

    /// For sessions: `on_store_error`.
    pub(crate) fn store_error(error: &StoreError) {
        record("Debug of StoreError", format!("{error:?}\n{error:#?}"));
        record("Display of StoreError", format!("{error}\n{}", error.cause));
        record("causes of StoreError", errors::text(error));
    }

    /// What is in a content that may have something in it.
    pub(crate) fn search(&self, content: &[u8]) -> BTreeSet<Secret> {
        let found = self.canaries.lock().unwrap().search(content);
        found.into_iter().map(|found| found.secret).collect()
    }

    /// What was shown by `Debug`, say: the places in which something was said whose name begins so,
    /// without that.
    pub(crate) fn places(prefix: &str) -> BTreeSet<String> {
        let records = records();
        let places = records.iter().map(|record| record.place.as_str());
        let rest = places.filter_map(|place| place.strip_prefix(prefix));
        rest.map(str::to_owned).collect()
    }

    /// That what collects does so: somebody of this name has said something.
    #[track_caller]
    pub(crate) fn heard(&self, who: &[&str]) {
        self.count();
        for who in who {
            let heard = records().iter().any(|record| record.place.starts_with(who));
            let places = Self::places("");
            assert!(heard, "nothing of {who}, but of {places:#?}");
        }
    }

    fn count(&self) {
        for (key, _, _, value) in self.metrics.snapshot().into_vec() {
            record("metrics", format!("{key:?} {value:?}"));
        }
    }

    /// No secret was said, anywhere.
    #[track_caller]
    pub(crate) fn end(self) {
        self.end_but(&[]);
    }

    /// No secret was said, but for what is known to be: which, and where. Whatever is known to be
    /// said has to have been said.
    #[track_caller]
    pub(crate) fn end_but(self, known: &[(Secret, &str)]) {
        self.count();
        let records = std::mem::take(&mut *records());
        // All say the same things again and again.
        let texts: BTreeMap<_, _> = records.iter().map(|r| ((&r.text, &r.place), r)).collect();
        let canaries = self.canaries.lock().unwrap();
        // By place: which, and an example of each shape.
        let mut leaks = BTreeMap::<_, (BTreeSet<_>, BTreeMap<_, _>)>::new();
        let mut seen = BTreeSet::new();
        for record in texts.values() {
            // Whose panic it is decides what it says: a test's is the user's.
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
        let mut said = String::new();
        for (place, (secrets, examples)) in &leaks {
            writeln!(said, "{place}: {secrets:?}").unwrap();
            // What needed undoing the least.
            let example = examples.iter().min_by_key(|(shape, _)| shape.len());
            if let Some((shape, text)) = example {
                let text: String = text.chars().take(1_000).collect();
                writeln!(said, "{shape}: {text}\n").unwrap();
            }
        }
        assert!(leaks.is_empty(), "{} leaks:\n\n{said}", leaks.len());
        let places: BTreeSet<_> = records.iter().map(|r| &r.place).collect();
        for (at, known) in known.iter().enumerate() {
            assert!(
                seen.contains(&at),
                "not said any more: {known:?}; of {places:#?}"
            );
        }
    }
}

/// The client's id tells configurations apart; it shows nowhere else.
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

/// Without its path and what it is of.
pub(crate) fn name_of<T: ?Sized>() -> &'static str {
    let name = type_name::<T>().trim_start_matches('&');
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}
