//! [`TokenCache`]: one token, kept alive.
//!
//! The way of a request reads one [`Snapshot`] through an `ArcSwap` and lets
//! [`lifecycle::classify`] decide. Only when that asks for something to be done is the lock taken,
//! the decision made again under it (somebody may have been faster), and a [`flight`] started.
//!
//! Invariants: no lock and no `ArcSwap` guard is held across an await; the state's lock is not held
//! while a flight is spawned, which on a dead runtime ends it on the spot. The snapshot is published before the lock is released, so readers see transitions in order.
//! Dropping any caller at any point loses nothing: what matters runs in the flight's own task.

mod backoff;
mod builder;
mod control;
mod flight;
mod keeper;
mod lifecycle;
mod status;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, header::AUTHORIZATION};
use tokio::runtime::Handle;

pub use self::{builder::TokenCacheBuilder, keeper::KeepFresh, status::TokenStatus};
use self::{
    control::{Control, Rejection, Snapshot},
    flight::{Departure, Flight, Outcome, WaitEnd},
    lifecycle::{Verdict, classify},
};
use crate::{
    AccessToken, Clock, Error, ErrorKind, FetchReason, TokenSource,
    clock::Moment,
    error::Retry,
    source::{Arrived, ErasedSource},
    token::TokenId,
};

/// Holds the current token of one [`TokenSource`] and keeps it alive.
///
/// Clones share one state. Nothing is fetched, and no runtime needed, until somebody asks for a
/// token; token requests then run in a task of their own, at most one at a time, however many
/// callers wait.
///
/// Tokens are renewed ahead of their end while requests go on with the one in hand; nobody waits
/// for that. If it fails, the token serves until it really ends, and failures are spaced by a
/// backoff. The details are in the [crate's documentation](crate#the-life-of-a-token).
///
/// | | |
/// |---|---|
/// | [`token`](Self::token) | the token; waits for one if it has to |
/// | [`try_token`](Self::try_token) | the token in hand, if it is good; never waits |
/// | [`prefetch`](Self::prefetch) | asks for one in the background if one is due: at start-up |
/// | [`keep_fresh`](Self::keep_fresh) | does so for as long as it is held, with nobody calling |
/// | [`refresh`](Self::refresh) | asks for another whatever there is: by hand, after something was mended |
/// | [`reject`](Self::reject) | this one was refused: what the layer does after a 401 |
/// | [`forget`](Self::forget) | none is good any more: somebody has signed out |
///
/// ```
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use bearer_auth::{ClientCredentials, TokenCache};
///
/// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "secret").build()?;
/// let cache = TokenCache::new(source);
/// let token = cache.token().await?;
/// println!("valid until {:?}", token.expires_at());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenCache(Arc<Shared>);

/// A [`TokenCache`] as its source knows it: it keeps nothing alive.
#[derive(Clone)]
pub struct WeakTokenCache(Weak<Shared>);

impl WeakTokenCache {
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// [`TokenCache::forget`], if the cache is still there.
    pub fn forget(&self) {
        if let Some(shared) = self.0.upgrade() {
            TokenCache(shared).forget();
        }
    }
}

impl fmt::Debug for WeakTokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakTokenCache")
    }
}

struct Shared {
    snapshot: ArcSwap<Snapshot>,
    control: Mutex<Control>,
    keeper: Mutex<keeper::Keeper>,
    source: Arc<dyn ErasedSource>,
    settings: Settings,
}

#[derive(Debug)]
struct Settings {
    clock: Clock,
    runtime: Option<Handle>,
    default_lifetime: Option<Duration>,
    safety_margin: Duration,
    fetch_timeout: Duration,
}

/// How a request gets its token.
pub(crate) enum Acquire {
    Now(AccessToken),
    Wait(Waiting),
    Fail(Error),
}

/// A flight to wait for.
pub(crate) struct Waiting {
    flight: Arc<Flight>,
    /// There is a valid token: wait this long at most.
    fallback: Option<Duration>,
}

impl TokenCache {
    /// A cache with the default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// A cache with settings of your own.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(source)
    }

    /// The token, fetched if need be.
    ///
    /// Returns at once with a token that is good. Waits only when there is none, or briefly when
    /// the one there is ends within the safety margin. Dropping the future cancels nothing.
    ///
    /// # Errors
    ///
    /// There is no valid token, and the server gave none: all callers that waited for the same
    /// token request get the same error, and so do those who come before the next attempt is due
    /// ([`Error::retry_after`]), at once. [`ErrorKind::NoRuntime`] outside a tokio runtime.
    ///
    /// # Panics
    ///
    /// On a tokio runtime that was built without its timer (`enable_time`).
    pub async fn token(&self) -> Result<AccessToken, Error> {
        match self.acquire(false) {
            Acquire::Now(token) => Ok(token),
            Acquire::Wait(waiting) => self.wait(waiting, false).await,
            Acquire::Fail(error) => Err(error),
        }
    }

    /// The token in hand if it is valid, without waiting. Starts a token request in the background
    /// when one is due.
    pub fn try_token(&self) -> Option<AccessToken> {
        match self.acquire_for(false, false) {
            Acquire::Now(token) => Some(token),
            Acquire::Wait(_) | Acquire::Fail(_) => self.in_hand(),
        }
    }

    /// The API refused this token: it is replaced, unless a newer one has come already.
    ///
    /// Compares by value, so a late answer about an old token leaves the new one alone. The next
    /// token is fetched in the background. If that fails, or is not allowed yet because tokens
    /// were refused again and again, the refused token goes on serving: the fault may be one
    /// route's.
    pub fn reject(&self, token: &AccessToken) {
        let _ = self.rejected(token, false);
    }

    /// A new token, whatever the state of the one in hand, and whatever the backoff says. Joins a
    /// token request that is under way.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token), but of this token request: the token in hand stays as it is.
    pub async fn refresh(&self) -> Result<AccessToken, Error> {
        let runtime = self.runtime();
        let (flight, departure) = self.transition(|control, now| {
            if let Some(flight) = control.flight() {
                flight.hurry();
                return Ok::<_, Error>((Arc::clone(flight), None));
            }
            let runtime = runtime.ok_or_else(Error::no_runtime)?;
            let departure = self.depart(control, FetchReason::Manual, now, now, runtime);
            departure.flight.expect_waiter();
            Ok((Arc::clone(&departure.flight), Some(departure)))
        })?;
        self.take_off(departure);
        match flight.wait(&self.0.settings.clock, None).await {
            WaitEnd::Outcome(outcome) => outcome.map(|landed| landed.token),
            WaitEnd::Interrupted => Err(interrupted()),
            WaitEnd::TimeUp => {
                self.supersede(&flight);
                Err(overdue())
            }
        }
    }

    /// The tokens are void, all that there are and those that a token request under way may still
    /// bring: somebody has signed out. What waits for that request gets an error.
    pub fn forget(&self) {
        self.transition(|control, _| control.forget());
    }

    /// Starts a token request if one is due, and returns at once: for start-up, so that the first
    /// request need not wait. Without a tokio runtime it does nothing.
    pub fn prefetch(&self) {
        let _ = self.acquire_for(true, false);
    }

    /// What the cache has: for readiness probes and status pages. No I/O, no waiting.
    ///
    /// ```
    /// use bearer_auth::TokenCache;
    ///
    /// /// The answer of a readiness probe; the program holds `cache.keep_fresh()`.
    /// fn ready(cache: &TokenCache) -> Result<(), String> {
    ///     let status = cache.status();
    ///     match status.last_error {
    ///         _ if status.ready => Ok(()),
    ///         Some(error) => Err(error.to_string()),
    ///         None => Err("no token yet".to_owned()),
    ///     }
    /// }
    /// ```
    pub fn status(&self) -> TokenStatus {
        status::status(&self.0.snapshot.load(), self.0.settings.clock.now())
    }

    /// Renews the token ahead of its end even when nobody asks for it, for as long as the guard
    /// lives. Without it, a cache that nobody asks does nothing.
    ///
    /// Outside a tokio runtime it starts with the first token request.
    pub fn keep_fresh(&self) -> KeepFresh {
        KeepFresh::new(self.clone())
    }

    /// Whether the caller has put a token of its own on a request. What header ours goes in is
    /// known when there is one: until then, it is `Authorization`.
    pub(crate) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let in_authorization = |token: &AccessToken| token.header_name() == AUTHORIZATION;
        headers.contains_key(AUTHORIZATION) && self.present().as_ref().is_none_or(in_authorization)
    }

    /// The way of a request, up to where it has to wait. `can_resend`: see [`classify`].
    #[inline]
    pub(crate) fn acquire(&self, can_resend: bool) -> Acquire {
        self.acquire_for(can_resend, true)
    }

    /// `waits`: the caller is going to wait if it is told to.
    #[inline]
    fn acquire_for(&self, can_resend: bool, waits: bool) -> Acquire {
        let now = self.0.settings.clock.now();
        let settled = self.0.snapshot.load().settled(now, can_resend);
        settled.unwrap_or_else(|| self.start_flight(can_resend, waits))
    }

    /// Lends the token to `put`, if there is one that is good and leaves nothing to do: the way of
    /// nearly all requests. No reference count is touched.
    #[inline]
    pub(crate) fn with_fresh<T>(&self, put: impl FnOnce(&AccessToken) -> T) -> Option<T> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match &snapshot.token {
            Some(token) if !now.reached(snapshot.fresh_until) => Some(put(token)),
            _ => None,
        }
    }

    /// The token that was sent as `id`, unless there is a newer one.
    pub(crate) fn recall(&self, id: TokenId) -> Option<AccessToken> {
        self.present().filter(|token| token.id() == id)
    }

    /// The token that there is, good or not.
    pub(crate) fn present(&self) -> Option<AccessToken> {
        self.0.snapshot.load().token.clone()
    }

    /// A flight has to start, unless somebody has been faster.
    #[cold]
    fn start_flight(&self, can_resend: bool, waits: bool) -> Acquire {
        let runtime = self.runtime();
        let (answer, departure) = self.transition(|control, now| {
            if let Some(settled) = control.snapshot().settled(now, can_resend) {
                return (settled, None);
            }
            let token = control.token().cloned();
            match (classify(&control.state(), now, can_resend), runtime, token) {
                (Verdict::Ageing, runtime, Some(token)) => {
                    let departure = runtime.map(|runtime| {
                        self.depart(control, FetchReason::Ageing, now, now, runtime)
                    });
                    (Acquire::Now(token), departure)
                }
                (Verdict::Due { fallback }, Some(runtime), _) => {
                    let blocked = control.not_before().filter(|until| !now.reached(*until));
                    let starts_at = blocked.unwrap_or(now);
                    let departure =
                        self.depart(control, FetchReason::Expired, now, starts_at, runtime);
                    let flight = Arc::clone(&departure.flight);
                    if waits {
                        flight.expect_waiter();
                    }
                    let waiting = Waiting { flight, fallback };
                    (Acquire::Wait(waiting), Some(departure))
                }
                (Verdict::Due { fallback: Some(_) }, None, Some(token)) => {
                    (Acquire::Now(token), None)
                }
                _ => (Acquire::Fail(Error::no_runtime()), None),
            }
        });
        self.take_off(departure);
        answer
    }

    /// Waits, and classifies again.
    pub(crate) async fn wait(
        &self,
        mut waiting: Waiting,
        can_resend: bool,
    ) -> Result<AccessToken, Error> {
        /// A token may be over again when its waiter wakes: how often to start anew.
        const ROUNDS: usize = 3;

        for _ in 0..ROUNDS {
            let Waiting { flight, fallback } = waiting;
            let end = flight.wait(&self.0.settings.clock, fallback).await;
            if let Some(token) = self.in_hand() {
                return Ok(token);
            }
            match end {
                WaitEnd::Outcome(Ok(landed)) if landed.over_on_arrival => return Ok(landed.token),
                WaitEnd::Outcome(Ok(_)) => {}
                WaitEnd::Outcome(Err(error)) => return Err(error),
                // Somebody gave it up, and another is under way.
                WaitEnd::Interrupted if self.0.snapshot.load().flight.is_some() => {}
                WaitEnd::Interrupted => return Err(interrupted()),
                WaitEnd::TimeUp if fallback.is_none() => self.supersede(&flight),
                WaitEnd::TimeUp => {}
            }
            waiting = match self.acquire(can_resend) {
                Acquire::Now(token) => return Ok(token),
                Acquire::Fail(error) => return Err(error),
                Acquire::Wait(waiting) => waiting,
            };
        }
        Err(overdue())
    }

    /// The API refused `rejected`: another token, if there is or will be one.
    pub(crate) async fn renew(&self, rejected: &AccessToken) -> Option<AccessToken> {
        let other = |token: &AccessToken| !token.same_value(rejected);
        let flight = match self.rejected(rejected, true) {
            Rejected::Superseded => return self.token().await.ok().filter(other),
            Rejected::TooSoon => return None,
            Rejected::Flight(flight) => flight,
        };
        let landed = match flight.wait(&self.0.settings.clock, None).await {
            WaitEnd::Outcome(outcome) => outcome.ok().map(|landed| landed.token),
            WaitEnd::Interrupted => None,
            WaitEnd::TimeUp => {
                self.supersede(&flight);
                None
            }
        };
        self.in_hand().filter(other).or(landed.filter(other))
    }

    fn rejected(&self, rejected: &AccessToken, waits: bool) -> Rejected {
        let runtime = self.runtime();
        let (answer, departure) =
            self.transition(
                |control, now| match (control.reject(rejected, now), runtime) {
                    (Rejection::Superseded, _) => (Rejected::Superseded, None),
                    (Rejection::Join(flight), _) => (Rejected::Flight(flight), None),
                    (Rejection::Hurry(flight), _) => {
                        flight.hurry();
                        control.rejection_flight(now);
                        (Rejected::Flight(flight), None)
                    }
                    (Rejection::TooSoon, _) | (Rejection::Start, None) => (Rejected::TooSoon, None),
                    (Rejection::Start, Some(runtime)) => {
                        let departure =
                            self.depart(control, FetchReason::Rejected, now, now, runtime);
                        control.rejection_flight(now);
                        if waits {
                            departure.flight.expect_waiter();
                        }
                        (
                            Rejected::Flight(Arc::clone(&departure.flight)),
                            Some(departure),
                        )
                    }
                },
            );
        self.take_off(departure);
        answer
    }

    /// Whether `token` has ended by now.
    pub(crate) fn is_over(&self, token: &AccessToken) -> bool {
        token.is_over(self.0.settings.clock.now())
    }

    /// The token in hand, if it has not ended.
    pub(crate) fn in_hand(&self) -> Option<AccessToken> {
        let now = self.0.settings.clock.now();
        let snapshot = self.0.snapshot.load();
        match classify(&snapshot.state, now, true) {
            Verdict::Due { fallback: None }
            | Verdict::BackingOff {
                fallback: false, ..
            } => None,
            _ => snapshot.token.clone(),
        }
    }

    /// A flight for `reason`, put in its place; it has yet to take off.
    fn depart(
        &self,
        control: &mut Control,
        reason: FetchReason,
        now: Moment,
        starts_at: Moment,
        runtime: Handle,
    ) -> Departure {
        let request = control.request(reason);
        let id = control.next_flight();
        let delay = now.until(starts_at);
        let limit = self.0.settings.fetch_timeout;
        let departure = Flight::prepare(id, starts_at, delay, limit, runtime, request);
        control.begin(&departure.flight);
        departure
    }

    fn take_off(&self, departure: Option<Departure>) {
        if let Some(departure) = departure {
            departure.take_off(Arc::clone(&self.0));
            self.ensure_keeper();
        }
    }

    /// The flight is overdue: its runtime stands still. Another may start.
    fn supersede(&self, flight: &Flight) {
        self.transition(|control, _| control.clear(flight));
    }

    fn transition<T>(&self, change: impl FnOnce(&mut Control, Moment) -> T) -> T {
        self.0.transition(change)
    }

    fn runtime(&self) -> Option<Handle> {
        let own = self.0.settings.runtime.clone();
        own.or_else(|| Handle::try_current().ok())
    }
}

impl Snapshot {
    /// What becomes of a request when there is nothing to do about it: a token in hand, a flight
    /// under way, or a failure that has to be told. `None`: a flight has to start.
    fn settled(&self, now: Moment, can_resend: bool) -> Option<Acquire> {
        match (classify(&self.state, now, can_resend), &self.token) {
            (Verdict::Fresh | Verdict::BackingOff { fallback: true, .. }, Some(token)) => {
                Some(Acquire::Now(token.clone()))
            }
            (Verdict::BackingOff { until, .. }, _) => {
                let error = self.error.as_ref()?;
                let wait = now.until(until);
                Some(Acquire::Fail(error.with_retry_after(wait)))
            }
            (Verdict::Due { fallback }, _) => {
                let flight = Arc::clone(self.flight.as_ref()?);
                Some(Acquire::Wait(Waiting { flight, fallback }))
            }
            (Verdict::Ageing | Verdict::Fresh, _) => None,
        }
    }
}

/// See [`TokenCache::rejected`].
enum Rejected {
    Superseded,
    Flight(Arc<Flight>),
    TooSoon,
}

impl Shared {
    /// Changes the state, and publishes it.
    fn transition<T>(&self, change: impl FnOnce(&mut Control, Moment) -> T) -> T {
        let mut control = self.lock();
        let answer = change(&mut control, self.settings.clock.now());
        self.snapshot.store(Arc::new(control.snapshot()));
        answer
    }

    fn land(&self, flight: &Flight, result: Result<Arrived, Error>) -> Option<Outcome> {
        let margin = self.settings.safety_margin;
        let jitter = jitter();
        self.transition(|control, now| control.land(flight, now, result, margin, jitter))
    }

    /// The flight's task was dropped before it had a result. A source that panics is not asked
    /// again at once; for a runtime that was shut down, the next caller's may serve.
    /// The error is for the flight's waiters: it says when the next attempt is due.
    fn crashed(&self, flight: &Flight, panicked: bool) -> Option<Error> {
        self.transition(|control, now| {
            let failed = control.clear(flight) && panicked;
            failed.then(|| control.fail(now, interrupted(), jitter()))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        // Nothing under the lock leaves the state half changed.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: TokenSource> From<T> for TokenCache {
    fn from(source: T) -> Self {
        Self::new(source)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("status", &self.status())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

fn interrupted() -> Error {
    let message = "the token request was interrupted: its runtime was shut down, or it panicked";
    Error::build(ErrorKind::Interrupted, Retry::Later, message).done()
}

fn overdue() -> Error {
    let message = "no token in time: the runtime of the token request stands still, \
                   or tokens are over before they can be used";
    Error::build(ErrorKind::Timeout, Retry::Later, message).done()
}

/// From 0 to 1.
fn jitter() -> f64 {
    rand::random()
}

#[cfg(all(test, feature = "testing"))]
mod tests;
