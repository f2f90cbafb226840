//! [`TokenCache`], and the state that its clones share.
//!
//! Invariants:
//! - No lock and no `ArcSwap` guard is held across an await.
//! - The state's lock is not held while a flight is spawned.
//! - The snapshot is published before the lock is released, so that readers see transitions in order.
//! - Dropping a caller's future loses nothing: the flight runs in a task of its own.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    keeper::Keeper,
    state::{Snapshot, State},
};
use crate::{
    clock::{Clock, Moment},
    event::Events,
    sync::{ArcSwap, Handle, Mutex, MutexGuard},
    token::{ErasedSource, Forget},
};

/// Caches the current access token of one [`TokenSource`](crate::TokenSource) and refreshes it.
///
/// Clones share one state. A new cache sends no request, and needs no runtime, before the first call
/// for a token. All callers that wait share one token request, in a task of its own (single flight).
///
/// Tokens are refreshed ahead of expiry, in the background, while requests use the cached token. If
/// the refresh fails, the cached token serves until it expires, and token requests back off. The
/// [crate's documentation](crate#lifecycle-of-a-token) has the details.
///
/// | | |
/// |---|---|
/// | [`token`](Self::token) | returns the cached token, or waits for a new one |
/// | [`try_token`](Self::try_token) | returns the cached token if it is valid; never waits |
/// | [`prefetch`](Self::prefetch) | requests a token in the background if one is due: at start-up |
/// | [`keep_fresh`](Self::keep_fresh) | refreshes without traffic until the guard is dropped |
/// | [`refresh`](Self::refresh) | requests a new token now: after an operator has fixed a permanent error |
/// | [`reject`](Self::reject) | reports that the API rejected a token: the layer does so after a 401 |
/// | [`forget`](Self::forget) | drops the token: the user has signed out |
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
pub struct TokenCache(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) state: Mutex<State>,
    pub(super) keeper: Mutex<Keeper<Self>>,
    pub(super) source: Arc<dyn ErasedSource>,
    pub(super) settings: Settings,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) clock: Clock,
    pub(super) runtime: Option<Handle>,
    pub(super) default_lifetime: Option<Duration>,
    pub(super) safety_margin: Duration,
    pub(super) fetch_timeout: Duration,
    pub(super) events: Events,
}

impl TokenCache {
    /// Drops the cached token, and ignores the result of a token request in flight. Call it when the
    /// user has signed out. Callers that wait for that request get an error.
    pub fn forget(&self) {
        self.0.transition(|state, _| state.forget());
    }
}

impl Shared {
    /// Changes the state, and publishes it.
    pub(super) fn transition<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let mut state = self.lock();
        let answer = change(&mut state, self.settings.clock.now());
        self.snapshot.store(Arc::new(state.snapshot()));
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the runtime for token requests: the configured one, else the caller's.
    pub(super) fn runtime(&self) -> Option<Handle> {
        let own = self.settings.runtime.clone();
        own.or_else(|| Handle::try_current().ok())
    }

    /// Starts the task of [`KeepFresh`](super::KeepFresh) guards if they wait for a runtime.
    pub(super) fn ensure_keeper(self: &Arc<Self>) {
        let runtime = self.runtime();
        Keeper::ensure(&self.keeper, self, runtime);
    }
}

impl Forget for Shared {
    fn forget(self: Arc<Self>) {
        TokenCache(self).forget();
    }
}

/// A random number from 0 to 1.
pub(super) fn jitter() -> f64 {
    #[cfg(test)]
    if let Some(given) = JITTER.get() {
        return given;
    }
    rand::random()
}

#[cfg(test)]
thread_local! {
    /// The jitter of the current test.
    pub(super) static JITTER: std::cell::Cell<Option<f64>> = const { std::cell::Cell::new(None) };
}
