//! [`Entry`]: one shared value in Redis, and the lease on it.

use std::{fmt, sync::Arc, time::Duration};

use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{client::RedisClient, scripts::LOOK};
use crate::{
    clock::{Clock, Pauses},
    error::{BoxError, Error},
    session::store::{Sealer, SealingKey},
    token::TokenKey,
};

/// How long a lease lasts if it is not extended.
const LEASE: Duration = Duration::from_secs(10);
/// How long Redis may take to answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The first pause between two looks at an entry that another process writes, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// The prefix of a lease's value after a failed token request. The error's text follows.
pub(super) const FAILED: &str = "failed ";

/// The configuration of all entries.
#[derive(Clone)]
pub(super) struct Settings {
    client: RedisClient,
    pub(super) sealer: Sealer,
    pub(super) prefix: Arc<str>,
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
    pub(super) session_ttl: Option<Duration>,
    clock: Clock,
}

impl Settings {
    /// `key` seals the values; without a key they are in clear text.
    pub(super) fn new(client: RedisClient, key: Option<SealingKey>) -> Self {
        let mut sealer = Sealer::default();
        if let Some(key) = key {
            sealer.seal_with(key);
        }
        Self {
            client,
            sealer,
            prefix: Arc::from("bearer-auth"),
            lease: LEASE,
            timeout: TIMEOUT,
            session_ttl: None,
            clock: Clock::default(),
        }
    }

    pub(super) fn entry(&self, key: &TokenKey) -> Entry {
        let data = format!("{{{}:{key}}}", self.prefix);
        let lease = format!("{data}:lease");
        Entry {
            settings: self.clone(),
            names: Arc::new([data, lease]),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("sealer", &self.sealer)
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .field("timeout", &self.timeout)
            .field("session_ttl", &self.session_ttl)
            .finish_non_exhaustive()
    }
}

/// One shared value, and the lease on it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    settings: Settings,
    names: Arc<[String; 2]>,
}

/// The content of an entry, as [`Entry::look`] returns it.
pub(super) struct Seen {
    pub(super) generation: String,
    /// The value in clear text, or why it does not open; `None` if there is no value.
    pub(super) value: Option<Result<Zeroizing<Vec<u8>>, BoxError>>,
    /// The remaining TTL; `None` if the entry does not expire.
    pub(super) left: Option<Duration>,
}

/// The holder of a lease, or the failed token request that blocks it.
pub(super) struct Holder {
    name: String,
    /// How long the lease lasts if it is not extended.
    pub(super) left: Duration,
}

impl Holder {
    pub(super) fn new(name: String, left: Duration) -> Self {
        Self { name, left }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the error's text if the lease is blocked by a failed token request.
    pub(super) fn failed(&self) -> Option<&str> {
        self.name.strip_prefix(FAILED)
    }
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Entry {
    /// Prepares a script for the entry's two keys.
    pub(super) fn script<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        for name in &*self.names {
            invocation.key(name);
        }
        invocation
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, BoxError> {
        let timeout = self.settings.timeout;
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        let result: Option<RedisResult<T>> = self
            .settings
            .clock
            .timeout(timeout, &runtime, self.settings.client.run(script))
            .await;
        match result {
            Some(result) => Ok(result?),
            None => Err(format!("no answer from Redis within {timeout:?}").into()),
        }
    }

    pub(super) async fn look(&self) -> Result<Seen, BoxError> {
        let script = self.script(&LOOK);
        let (generation, value, left): (String, Vec<u8>, i64) = self.run(&script).await?;
        let value = Zeroizing::new(value);
        Ok(Seen {
            generation,
            value: (!value.is_empty()).then(|| self.open(value)),
            left: u64::try_from(left).ok().map(Duration::from_millis),
        })
    }

    pub(super) fn seal(&self, clear: &[u8]) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        match self.settings.sealer.seals() {
            // The name is bound: the value does not open in another entry.
            true => self.settings.sealer.seal(clear, self.names[0].as_bytes()),
            false => Ok(clear.to_vec()),
        }
        .map(Zeroizing::new)
    }

    fn open(&self, value: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        match self.settings.sealer.seals() {
            true => Ok(self
                .settings
                .sealer
                .open(&value, self.names[0].as_bytes())?),
            false => Ok(value),
        }
    }

    /// Sleeps. Returns at once without a runtime, which [`run`](Self::run) reports.
    pub(super) async fn sleep(&self, duration: Duration) {
        if let Ok(runtime) = Handle::try_current() {
            self.settings.clock.sleep(duration, &runtime).await;
        }
    }

    pub(super) fn lease(&self) -> Duration {
        self.settings.lease
    }

    pub(super) fn session_ttl(&self) -> Option<Duration> {
        self.settings.session_ttl
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.settings.clock
    }
}

/// The pauses between looks at an entry that another process writes.
pub(super) fn pauses() -> Pauses {
    Pauses::new(MIN_PAUSE, MAX_PAUSE)
}

/// Returns the next pause. It ends with the lease, which lasts for `left`.
pub(super) fn pause(pauses: &mut Pauses, left: Duration) -> Duration {
    pauses.next().min(left.max(MIN_PAUSE / 2))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
