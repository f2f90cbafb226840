//! [`SharedSource`]: one token request for all processes.
//!
//! ```text
//! look ── a usable token ────────────────────────────────▶ return it
//!  │ ▲
//!  │ └──── the entry has changed, or a pause has passed ─┐
//!  ▼                                                     │
//! take the lease ── another process has it ──────────────┘
//!  │   │     └───── another process's request failed ────▶ return that error
//!  │   └─────────── another has it for too long: take it over
//!  ▼
//! request a token ──▶ write it, release the lease ───────▶ return it
//!
//! at any step: Redis fails or times out ─────────────────▶ request a token alone
//! ```
//!
//! Invariants:
//!
//! 1. Redis is used when a token is due, never on the request path.
//! 2. Whatever Redis does, the caller gets a token if the authorization server issues one.
//! 3. A token that the caller has, or that the API has rejected, is not returned again.
//! 4. A late write never replaces a newer token.

use std::{fmt, sync::Arc, time::Duration};

use rand::RngExt as _;

use super::{
    entry::{Entry, Holder, Seen, pause, pauses},
    lease::{self, Lease, Taking},
    shared_redis::SharedRedis,
    value::SharedToken,
};
use crate::{
    clock::{Moment, Pauses},
    error::{BoxError, Error, ErrorKind, Retry},
    session::store::{OnStoreError, StoreError, StoreOperation},
    token::{
        AccessToken, FetchReason, TokenKey, TokenRequest, TokenResponse, TokenSource,
        WeakTokenCache, max_refresh_window,
    },
};

/// How long a token without an expiry stays in Redis.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Expiries that are closer than this count as equal.
const TOLERANCE: Duration = Duration::from_secs(1);
/// After a failed token request, no process sends another for this long, or for the server's
/// `Retry-After` if that is longer.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const MAX_FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a failure that is retried at once: as long as a flight waits before that retry.
const SOON_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait for the lease holder, plus up to half of it at random. Then one waiter takes the
/// lease over: the holder may be cut off from the server.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(10);

/// A [`TokenSource`] that shares the tokens of another one among processes: see [the module](super).
///
/// ```no_run
/// use bearer_auth::{ClientCredentials, BearerAuthLayer, redis::{SharedRedis, SharedSource}, store::SealingKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = ClientCredentials::builder("https://idp.example/token", "client-id", "secret")
///     .scope("orders:read")
///     .build()?;
/// let redis = redis::Client::open("rediss://redis.example")?;
/// let redis = SharedRedis::sealed(redis, SealingKey::from_base64(&std::env::var("SEALING_KEY")?)?);
///
/// let key = source.token_key();
/// let auth = BearerAuthLayer::for_api("https://api.example.com/", SharedSource::new(source, redis, key))?;
/// # Ok(()) }
/// ```
pub struct SharedSource<S> {
    source: S,
    entry: Entry,
    warn: OnStoreError,
}

/// Why there is no shared token.
enum NotShared {
    /// Redis failed.
    NoRedis,
    /// The token request for all processes failed.
    Failed(Error),
}

/// Waiting for the token request of a lease holder.
struct HolderWait {
    pauses: Pauses,
    holder: Option<Holder>,
    /// Since when this holder has had the lease, as far as is known.
    since: Moment,
    timeout: Duration,
}

impl<S: TokenSource> SharedSource<S> {
    /// Returns a source that shares the tokens of `source` among all processes with the same Redis,
    /// prefix and `key`.
    pub fn new(source: S, redis: SharedRedis, key: TokenKey) -> Self {
        Self {
            source,
            entry: redis.entry(&key),
            warn: Arc::new(|_| {}),
        }
    }

    /// Sets a callback for Redis errors. Requests are not affected: the process falls back to a token
    /// request of its own. Defaults to none.
    #[must_use]
    pub fn on_store_error(
        mut self,
        callback: impl Fn(&StoreError) + Send + Sync + 'static,
    ) -> Self {
        self.warn = Arc::new(callback);
        self
    }

    async fn shared(&self, request: &TokenRequest) -> Result<TokenResponse, NotShared> {
        let mut wait = HolderWait::new(self.entry.clock().now());
        loop {
            let seen = self.entry.look().await;
            let seen = seen.map_err(|cause| self.redis_failed(StoreOperation::Load, cause))?;
            if let Some(response) = self.usable(&seen, request) {
                return Ok(response);
            }
            if let Some(lease) = self.take_lease(&seen, &mut wait, request).await? {
                let response = self.fetch_for_all(lease, request).await;
                return response.map_err(NotShared::Failed);
            }
        }
    }

    /// Waits for the lease, and takes it. Returns `None` if the entry has changed since it was `seen`.
    async fn take_lease(
        &self,
        seen: &Seen,
        wait: &mut HolderWait,
        request: &TokenRequest,
    ) -> Result<Option<Lease>, NotShared> {
        let mut from = None;
        loop {
            let taking = lease::take(&self.entry, Some(&seen.generation), from.as_ref());
            let taking = taking.await;
            let taking = taking.map_err(|cause| self.redis_failed(StoreOperation::Lock, cause))?;
            let holder = match taking {
                Taking::Taken(lease) => return Ok(Some(lease)),
                Taking::Changed => return Ok(None),
                Taking::Held(holder) => holder,
            };
            match holder.failed() {
                // An explicit refresh does not wait: the user may have fixed the cause.
                Some(_) if request.reason == FetchReason::Manual => from = Some(holder),
                Some(why) => {
                    let error = failed_elsewhere(why, holder.left);
                    return Err(NotShared::Failed(error));
                }
                None if wait.is_too_long(&holder, self.entry.clock().now()) => {
                    let why = "another process has had the lease for too long: taking it over";
                    self.redis_failed(StoreOperation::Lock, why.into());
                    from = Some(holder);
                }
                None => {
                    let pause = pause(&mut wait.pauses, holder.left);
                    self.entry.sleep(pause).await;
                    wait.holder = Some(holder);
                }
            }
        }
    }

    fn redis_failed(&self, operation: StoreOperation, cause: BoxError) -> NotShared {
        (self.warn)(&StoreError::new(operation, cause));
        NotShared::NoRedis
    }

    /// Returns the shared token, if this process can use it.
    fn usable(&self, seen: &Seen, request: &TokenRequest) -> Option<TokenResponse> {
        let opened = match seen.value.as_ref()? {
            Ok(value) => SharedToken::from_json(value).map_err(BoxError::from),
            Err(cause) => Err(cause.to_string().into()),
        };
        let shared = match opened {
            Ok(shared) => shared,
            // The next token overwrites it.
            Err(cause) => {
                self.redis_failed(StoreOperation::Load, cause);
                return None;
            }
        };
        let known = [&request.previous, &request.rejected];
        if known
            .into_iter()
            .flatten()
            .any(|known| shared.is(known.expose_secret()))
        {
            return None;
        }
        if let Some(lifetime) = shared.lifetime {
            // Without a TTL, the entry was not written by this crate.
            let left = seen.left?;
            // A caller with a token needs one that is not in its refresh window. A caller without one
            // takes any, and its cache refreshes it soon.
            let too_short = match (&request.previous, &request.rejected) {
                (None, None) => lifetime / 10,
                _ => max_refresh_window(lifetime),
            };
            if left <= too_short || self.is_older(left, request) {
                return None;
            }
        }
        shared.response(seen.left, MAX_TTL).ok()
    }

    /// Whether the shared token expires before this process's own, which was fetched while Redis was
    /// down. A rejected token does not count.
    fn is_older(&self, left: Duration, request: &TokenRequest) -> bool {
        let known = request.previous.as_ref();
        let known = known.filter(|_| request.rejected.is_none());
        let own = known.and_then(AccessToken::expires_at);
        let shared = self.entry.clock().system_time().checked_add(left);
        matches!((own, shared), (Some(own), Some(shared)) if shared + TOLERANCE < own)
    }

    async fn fetch_for_all(
        &self,
        lease: Lease,
        request: &TokenRequest,
    ) -> Result<TokenResponse, Error> {
        let asked_at = self.entry.clock().now();
        let response = match self.source.fetch(request.clone()).await {
            Ok(response) => response,
            Err(error) => {
                // A permanent error may concern this process alone: the others send their own request.
                let pause = (error.retry() != Retry::Never).then(|| {
                    let least = match error.retry() {
                        Retry::Soon => SOON_PAUSE,
                        _ => FAILURE_PAUSE,
                    };
                    let asked = error.server_wait().unwrap_or_default();
                    asked.clamp(least, MAX_FAILURE_PAUSE)
                });
                let why = error.to_string();
                lease
                    .release(pause.map(|pause| (why.as_str(), pause)))
                    .await;
                return Err(error);
            }
        };
        let now = self.entry.clock().now();
        let anchored = response.lifetime(asked_at, now);
        let lifetime = anchored.map(|(_, lifetime)| lifetime);
        let left = anchored.map(|(anchor, lifetime)| now.until(anchor.after(lifetime)));
        if left != Some(Duration::ZERO)
            && let Ok(json) = SharedToken::of(&response, lifetime).to_json()
        {
            let written = lease.write(&json, Some(left.unwrap_or(MAX_TTL)), false);
            if let Err(cause) = written.await {
                self.redis_failed(StoreOperation::Save, cause);
                // Releases the lease in the background.
                drop(lease);
                return Ok(response);
            }
        }
        lease.release(None).await;
        Ok(response)
    }
}

impl<S: TokenSource> TokenSource for SharedSource<S> {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        match self.shared(&request).await {
            Ok(response) => Ok(response),
            Err(NotShared::NoRedis) => self.source.fetch(request).await,
            Err(NotShared::Failed(error)) => Err(error),
        }
    }

    fn on_attach(&self, cache: WeakTokenCache) {
        self.source.on_attach(cache);
    }
}

impl HolderWait {
    fn new(now: Moment) -> Self {
        Self {
            pauses: pauses(),
            holder: None,
            since: now,
            timeout: HOLDER_TIMEOUT.mul_f64(rand::rng().random_range(1.0..=1.5)),
        }
    }

    /// Whether `holder` has had the lease for too long. A new holder starts a new timeout.
    fn is_too_long(&mut self, holder: &Holder, now: Moment) -> bool {
        if self.holder.as_ref() != Some(holder) {
            self.since = now;
        }
        now.since(self.since) >= self.timeout
    }
}

fn failed_elsewhere(why: &str, left: Duration) -> Error {
    // Untrusted: every writer to Redis can set it.
    let why: String = why.chars().take(200).filter(|c| !c.is_control()).collect();
    let message = "the token request of another process failed";
    // An awaited flight retries after the pause, if that is short.
    Error::build(ErrorKind::Source, Retry::Soon, message)
        .caused_by(why)
        .server_wait(Some(left.min(MAX_FAILURE_PAUSE)))
        .done()
}

impl<S: fmt::Debug> fmt::Debug for SharedSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSource")
            .field("source", &self.source)
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}
