//! The ways in which Redis fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bearer_auth::{
    BoxError, Error, TokenRequest, TokenResponse, TokenSource, redis::SharedRedis,
    store::TokenStore,
};

use super::Redis;
use crate::programs::redis::proxy::{Mode, Proxy};

/// A way in which Redis, or what is between it and us, can fail, and its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outage {
    Closed,
    Silent,
    Nonsense,
    Stopped,
    Paused,
    Full,
    ReadOnly,
    Forbidden,
}

impl Outage {
    pub(crate) const ALL: [Self; 8] = [
        Self::Closed,
        Self::Silent,
        Self::Nonsense,
        Self::Stopped,
        Self::Paused,
        Self::Full,
        Self::ReadOnly,
        Self::Forbidden,
    ];

    /// Whether it shows only by the time that passes.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Silent | Self::Stopped | Self::Paused)
    }

    pub(crate) async fn begin(self, redis: &Redis, proxy: &Proxy) {
        match self {
            Self::Closed => proxy.set(Mode::Closes),
            Self::Silent => proxy.set(Mode::IsSilent),
            Self::Nonsense => proxy.set(Mode::TalksNonsense),
            Self::Stopped => redis.stop(),
            Self::Paused => redis.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await,
            // Of a master that is not there.
            Self::ReadOnly => redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::Forbidden => redis.ask(&["ACL", "SETUSER", "default", "-@write"]).await,
        }
    }

    pub(crate) async fn end(self, redis: &Redis, proxy: &Proxy) {
        match self {
            Self::Closed | Self::Silent | Self::Nonsense => proxy.set(Mode::Passes),
            Self::Stopped => redis.go_on(),
            Self::Paused => redis.ask(&["CLIENT", "UNPAUSE"]).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::ReadOnly => redis.ask(&["REPLICAOF", "NO", "ONE"]).await,
            Self::Forbidden => redis.ask(&["ACL", "SETUSER", "default", "+@write"]).await,
        }
    }
}

/// How long whoever notices an outage waits for Redis: while all is well, long enough for a busy machine
/// to be no outage; during one, as long as a [`SharedRedis`] does by default, where that is how it shows.
#[derive(Clone)]
pub(crate) struct Tempered<T> {
    patient: T,
    hasty: T,
    is_hasty: Arc<AtomicBool>,
}

impl<T> Tempered<T> {
    pub(crate) fn new(store: &SharedRedis, of: impl Fn(SharedRedis) -> T) -> Self {
        Self {
            patient: of(store.clone().timeout(Duration::from_secs(60))),
            hasty: of(store.clone().timeout(Duration::from_millis(500))),
            is_hasty: Arc::default(),
        }
    }

    /// Since an outage of this kind has begun.
    pub(crate) fn notices(&self, outage: Outage) {
        self.is_hasty.store(outage.is_silence(), SeqCst);
    }

    /// All is well.
    pub(crate) fn calms_down(&self) {
        self.is_hasty.store(false, SeqCst);
    }

    fn now(&self) -> &T {
        match self.is_hasty.load(SeqCst) {
            true => &self.hasty,
            false => &self.patient,
        }
    }
}

impl<S: TokenSource> TokenSource for Tempered<Arc<S>> {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        self.now().fetch(request).await
    }
}

impl<S: TokenStore + Sync> TokenStore for Tempered<S> {
    type Locked = S::Locked;

    async fn lock(&self) -> Result<S::Locked, BoxError> {
        self.now().lock().await
    }
}
