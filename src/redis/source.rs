//! [`SharedSource`]: one token request for a whole fleet.
//!
//! ```text
//! look ── good for us ──────────────────────────────▶ use it
//!  │ ▲
//!  │ └──── changed meanwhile, or waited a little ──┐
//!  ▼                                               │
//! take the lease ── somebody else has it ──────────┘
//!  │   │     └───── somebody else has failed ──────▶ the same error
//!  │   └─────────── … has it for too long: from them
//!  ▼
//! ask the server ──▶ write it, give the lease back ─▶ use it
//!
//! anywhere: Redis is down, slow, or talks nonsense ─▶ ask the server, alone
//! ```
//!
//! Invariants: Redis is asked when a token is due, never on the way of a request; whatever Redis does,
//! there is a token if the server gives one; a token that the caller has, or that the API refused, is
//! not handed out again; what is written late never replaces what is newer.

use std::{fmt, sync::Arc, time::Duration};

use rand::RngExt as _;

use super::{
    entry::{Entry, Holder, Seen, pause, pauses},
    lease::{self, Lease, Taking},
    shared_redis::SharedRedis,
    value::Shared,
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

/// Tokens without an end are forgotten after this long.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Ends that are no further apart are the same, as far as clocks and answers tell.
const SAME: Duration = Duration::from_secs(1);
/// After a failure of the server, nobody asks it for this long, or for as long as it says, up to …
const PAUSE: Duration = Duration::from_secs(1);
/// … this. If another attempt may help at once, only for as long as a flight waits for that:
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SHORT_PAUSE: Duration = Duration::from_millis(200);
/// How long somebody else's token request is waited for, and up to half of it more: then one of those
/// who wait takes the lease from them. They may be cut off from the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A [`TokenSource`] around another, for processes that share its tokens: see [the module](super).
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

/// Why there is no token of Redis.
enum NotShared {
    /// It is of no use now.
    NoRedis,
    /// Who has asked for all has failed.
    Failed(Error),
}

/// For somebody else's token request.
struct Waiting {
    pauses: Pauses,
    holder: Option<Holder>,
    /// From when, and for how long.
    since: Moment,
    patience: Duration,
}

impl<S: TokenSource> SharedSource<S> {
    /// Shares the tokens of `source` with all that use the same Redis, prefix and `key`.
    pub fn new(source: S, redis: SharedRedis, key: TokenKey) -> Self {
        Self {
            source,
            entry: redis.entry(&key),
            warn: Arc::new(|_| {}),
        }
    }

    /// Is told when Redis fails. Requests go on: the process asks for a token of its own.
    #[must_use]
    pub fn on_store_error(mut self, told: impl Fn(&StoreError) + Send + Sync + 'static) -> Self {
        self.warn = Arc::new(told);
        self
    }

    async fn shared(&self, request: &TokenRequest) -> Result<TokenResponse, NotShared> {
        let mut waiting = Waiting::new(self.entry.clock().now());
        loop {
            let seen = self.entry.look().await;
            let seen = seen.map_err(|cause| self.fails(StoreOperation::Load, cause))?;
            if let Some(response) = self.usable(&seen, request) {
                return Ok(response);
            }
            if let Some(lease) = self.turn(&seen, &mut waiting, request).await? {
                let response = self.fetch_for_all(lease, request).await;
                return response.map_err(NotShared::Failed);
            }
        }
    }

    /// The lease, or `None` if there is something else than what has been seen.
    async fn turn(
        &self,
        seen: &Seen,
        waiting: &mut Waiting,
        request: &TokenRequest,
    ) -> Result<Option<Lease>, NotShared> {
        let mut from = None;
        loop {
            let taking = lease::take(&self.entry, Some(&seen.generation), from.as_ref());
            let taking = taking.await;
            let taking = taking.map_err(|cause| self.fails(StoreOperation::Lock, cause))?;
            let holder = match taking {
                Taking::Taken(lease) => return Ok(Some(lease)),
                Taking::Changed => return Ok(None),
                Taking::Held(holder) => holder,
            };
            match holder.failed() {
                // Somebody has mended something, and wants to know.
                Some(_) if request.reason == FetchReason::Manual => from = Some(holder),
                Some(why) => {
                    let error = failed_elsewhere(why, holder.left);
                    return Err(NotShared::Failed(error));
                }
                None if waiting.is_too_long(&holder, self.entry.clock().now()) => {
                    let why = "another process has had the lease for too long";
                    self.fails(StoreOperation::Lock, why.into());
                    from = Some(holder);
                }
                None => {
                    let pause = pause(&mut waiting.pauses, holder.left);
                    self.entry.sleep(pause).await;
                    waiting.holder = Some(holder);
                }
            }
        }
    }

    fn fails(&self, operation: StoreOperation, cause: BoxError) -> NotShared {
        (self.warn)(&StoreError::new(operation, cause));
        NotShared::NoRedis
    }

    /// What another process has, if it is of use to this one.
    fn usable(&self, seen: &Seen, request: &TokenRequest) -> Option<TokenResponse> {
        let opened = match seen.value.as_ref()? {
            Ok(value) => Shared::from_json(value).map_err(BoxError::from),
            Err(cause) => Err(cause.to_string().into()),
        };
        let shared = match opened {
            Ok(shared) => shared,
            // It is overwritten.
            Err(cause) => {
                self.fails(StoreOperation::Load, cause);
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
            // Without an end there, somebody has tampered with it.
            let left = seen.left?;
            // Whoever has a token wants one that is not about to age as well. Whoever has none takes
            // what there is, and the cache renews it soon.
            let enough = match (&request.previous, &request.rejected) {
                (None, None) => lifetime / 10,
                _ => max_refresh_window(lifetime),
            };
            if left <= enough || self.is_older(left, request) {
                return None;
            }
        }
        shared.response(seen.left, LONGEST).ok()
    }

    /// Than what this process has: that was fetched alone, while Redis was down. What was refused is
    /// worth nothing, however long it would have lived.
    fn is_older(&self, left: Duration, request: &TokenRequest) -> bool {
        let known = request.previous.as_ref();
        let known = known.filter(|_| request.rejected.is_none());
        let end = known.and_then(AccessToken::expires_at);
        let ends = self.entry.clock().system_time().checked_add(left);
        matches!((end, ends), (Some(end), Some(ends)) if ends + SAME < end)
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
                // What is wrong with this process alone is no reason to stop the others.
                let pause = (error.retry() != Retry::Never).then(|| {
                    let least = match error.retry() {
                        Retry::Soon => SHORT_PAUSE,
                        _ => PAUSE,
                    };
                    let asked = error.server_wait().unwrap_or_default();
                    asked.clamp(least, LONGEST_PAUSE)
                });
                let why = error.to_string();
                lease
                    .release(pause.map(|pause| (why.as_str(), pause)))
                    .await;
                return Err(error);
            }
        };
        let now = self.entry.clock().now();
        let life = response.lifetime(asked_at, now);
        let lifetime = life.map(|(_, lifetime)| lifetime);
        let left = life.map(|(anchor, lifetime)| now.until(anchor.after(lifetime)));
        if left != Some(Duration::ZERO)
            && let Ok(json) = Shared::of(&response, lifetime).to_json()
        {
            let written = lease.write(&json, Some(left.unwrap_or(LONGEST)), false);
            if let Err(cause) = written.await {
                self.fails(StoreOperation::Save, cause);
                // In the background.
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

impl Waiting {
    fn new(now: Moment) -> Self {
        Self {
            pauses: pauses(),
            holder: None,
            since: now,
            patience: PATIENCE.mul_f64(rand::rng().random_range(1.0..=1.5)),
        }
    }

    /// Each holder has a time of its own.
    fn is_too_long(&mut self, holder: &Holder, now: Moment) -> bool {
        if self.holder.as_ref() != Some(holder) {
            self.since = now;
        }
        now.since(self.since) >= self.patience
    }
}

fn failed_elsewhere(why: &str, left: Duration) -> Error {
    // Whoever writes to Redis could have written it.
    let why: String = why.chars().take(200).filter(|c| !c.is_control()).collect();
    let message = "another process has asked for the token, and failed";
    // A flight that is awaited asks again when the pause is over, if that is soon.
    Error::build(ErrorKind::Source, Retry::Soon, message)
        .caused_by(why)
        .server_wait(Some(left.min(LONGEST_PAUSE)))
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
