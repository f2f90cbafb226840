//! [`TokenCache`]: one token, kept alive.
//!
//! The way of a request reads one [`Snapshot`] through an `ArcSwap` and lets
//! [`lifecycle::classify`] decide. Only when that asks for something to be done is the lock taken,
//! the decision made again under it (somebody may have been faster), and a [`flight`] started.
//!
//! Invariants: no lock and no `ArcSwap` guard is held across an await; the state's lock is not held
//! while a flight is spawned, which on a dead runtime ends it on the spot. The snapshot is published
//! before the lock is released, so readers see transitions in order. Dropping any caller at any
//! point loses nothing: what matters runs in the flight's own task.

mod acquire;
mod backoff;
mod builder;
mod flight;
mod keep_fresh;
mod lifecycle;
mod state;
mod status;

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

pub(crate) use self::acquire::{Acquire, Waiting};
#[cfg(feature = "redis")]
pub(crate) use self::lifecycle::ageing_at_most;
pub use self::{builder::TokenCacheBuilder, keep_fresh::KeepFresh, status::TokenStatus};
use self::{
    flight::{Flight, Outcome, WaitEnd},
    state::{Control, Snapshot},
};
use crate::{
    clock::{Clock, Moment},
    error::{Error, ErrorKind, Retry},
    event::Events,
    sync::{ArcSwap, Handle, Mutex, MutexGuard},
    token::{AccessToken, Arrived, ErasedSource, FetchReason, TokenSource},
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
    keeper: Mutex<keep_fresh::Keeper>,
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
    events: Events,
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
        match self.wait_for(&flight, None).await {
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
    #[cfg(test)]
    if let Some(given) = JITTER.get() {
        return given;
    }
    rand::random()
}

#[cfg(test)]
thread_local! {
    /// Of a test that is about all there is.
    static JITTER: std::cell::Cell<Option<f64>> = const { std::cell::Cell::new(None) };
}

#[cfg(all(test, feature = "testing"))]
mod tests;
