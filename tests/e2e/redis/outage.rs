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

/// A failure of Redis or of the network before it, with its start and end.
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

    /// Whether only a timeout shows it.
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
            // A replica of a master that does not exist.
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

/// Something with a Redis timeout that a test switches.
///
/// The long timeout applies without an outage, so that a busy machine is not taken for one. The short
/// one is the default of [`SharedRedis`] and applies during an outage that only a timeout shows.
#[derive(Clone)]
pub(crate) struct SwitchedTimeout<T> {
    long: T,
    short: T,
    uses_short: Arc<AtomicBool>,
}

impl<T> SwitchedTimeout<T> {
    pub(crate) fn new(store: &SharedRedis, of: impl Fn(SharedRedis) -> T) -> Self {
        Self {
            long: of(store.clone().timeout(Duration::from_secs(60))),
            short: of(store.clone().timeout(Duration::from_millis(500))),
            uses_short: Arc::default(),
        }
    }

    /// Applies the timeout for this outage.
    pub(crate) fn outage_begins(&self, outage: Outage) {
        self.uses_short.store(outage.is_silence(), SeqCst);
    }

    /// Applies the long timeout again.
    pub(crate) fn outage_ends(&self) {
        self.uses_short.store(false, SeqCst);
    }

    fn now(&self) -> &T {
        match self.uses_short.load(SeqCst) {
            true => &self.short,
            false => &self.long,
        }
    }
}

impl<S: TokenSource> TokenSource for SwitchedTimeout<Arc<S>> {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        self.now().fetch(request).await
    }
}

impl<S: TokenStore + Sync> TokenStore for SwitchedTimeout<S> {
    type Locked = S::Locked;

    async fn lock(&self) -> Result<S::Locked, BoxError> {
        self.now().lock().await
    }
}
