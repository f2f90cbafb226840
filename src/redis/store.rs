//! [`RedisStore`]: what is shared, sealed, and the lease on it.

use std::{fmt, sync::Arc, time::Duration};

use rand::RngExt as _;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{
    client::RedisClient,
    lease::{Lease, Orphan},
    scripts::{LOOK, TAKE},
    session::RedisSession,
};
use crate::token::TokenKey;
use crate::{
    clock::Clock,
    error::BoxError,
    session::store::{Sealer, SealingKey},
};

/// How long a lease lasts that nobody prolongs.
const LEASE: Duration = Duration::from_secs(10);
/// How long Redis may take to answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The first pause between two looks at what somebody else is doing, and the longest. Each is drawn
/// from its half to its whole.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Between a lease and why there is none.
pub(super) const FAILED: &str = "failed ";

/// What the processes of a fleet share, in Redis or Valkey: see [the module](super).
///
/// Clones share a connection. Made without I/O; connected when a token is due.
#[derive(Clone)]
pub struct RedisStore {
    client: RedisClient,
    sealer: Sealer,
    prefix: Arc<str>,
    lease: Duration,
    timeout: Duration,
    session_ttl: Option<Duration>,
    clock: Clock,
}

impl RedisStore {
    /// Values are encrypted and authenticated with `key` (XChaCha20-Poly1305): whoever reads Redis
    /// reads no token, and whoever writes there makes none. All processes need the key.
    pub fn sealed(client: impl Into<RedisClient>, key: SealingKey) -> Self {
        let mut sealer = Sealer::default();
        sealer.seal_with(key);
        Self::with(client.into(), sealer)
    }

    /// Values are in clear: whoever reads Redis, its backups or its traffic has the tokens.
    pub fn plain_text(client: impl Into<RedisClient>) -> Self {
        Self::with(client.into(), Sealer::default())
    }

    fn with(client: RedisClient, sealer: Sealer) -> Self {
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

    /// A further key to open values with, while a key is being replaced: give the new one to all
    /// processes here first, then [seal](Self::sealed) with it and give the old one here, then leave
    /// that out.
    #[must_use]
    pub fn also_opens_with(mut self, key: SealingKey) -> Self {
        self.sealer.open_with(key);
        self
    }

    /// How the names of keys begin, for instance by environment. Default: `bearer-auth`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        // The braces are for the slot of a cluster.
        self.prefix = prefix.as_ref().replace(['{', '}'], "_").into();
        self
    }

    /// How long a process that has died keeps the others waiting. Default: 10 s. While its
    /// holder lives, it is prolonged three times in that time. At least 100 ms.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How long Redis may take to answer, until it counts as being down. Default: 500 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a session stays in Redis that nobody goes on with: each token request begins it anew.
    /// After that, its user signs in again. Default: for ever, so that those who never sign out stay
    /// there. Make it longer than refresh tokens last that are not used.
    #[must_use]
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = Some(ttl);
        self
    }

    /// A place for the session of `key`, for
    /// [`AuthorizationCode::with_store`](crate::AuthorizationCode::with_store).
    pub fn session(&self, key: TokenKey) -> RedisSession {
        RedisSession::new(self.entry(&key))
    }

    pub(super) fn entry(&self, key: &TokenKey) -> Entry {
        let data = format!("{{{}:{key}}}", self.prefix);
        let lease = format!("{data}:lease");
        Entry {
            store: self.clone(),
            names: Arc::new([data, lease]),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
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
    store: RedisStore,
    names: Arc<[String; 2]>,
}

/// What [`Entry::look`] sees.
pub(super) struct Seen {
    pub(super) generation: String,
    /// Opened; `None` if there is nothing, or nothing that opens.
    pub(super) value: Option<Result<Zeroizing<Vec<u8>>, BoxError>>,
    /// How long it stays there; `None`: it has no end.
    pub(super) left: Option<Duration>,
}

/// What [`Entry::take`] comes to.
pub(super) enum Taking {
    Taken(Lease),
    /// There is another value by now.
    Changed,
    Held(Holder),
}

/// Who has a lease, or why nobody gets it.
pub(super) struct Holder {
    name: String,
    /// For how long, if nothing else happens.
    pub(super) left: Duration,
}

impl Holder {
    /// Somebody had it, and failed: nobody gets it for a while.
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
    /// On its two keys.
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
        let timeout = self.store.timeout;
        let result: Option<RedisResult<T>> = self
            .store
            .clock
            .timeout(timeout, &Handle::current(), self.store.client.run(script))
            .await;
        match result {
            Some(result) => Ok(result?),
            None => Err(format!("Redis has not answered within {timeout:?}").into()),
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

    /// `seen`: only if what is there is still of that generation. `from`: also if this one has it.
    pub(super) async fn take(
        &self,
        seen: Option<&str>,
        from: Option<&Holder>,
    ) -> Result<Taking, BoxError> {
        let owner = format!("{:032x}", rand::rng().random::<u128>());
        let mut script = self.script(&TAKE);
        script
            .arg(&owner)
            .arg(millis(self.store.lease))
            .arg(seen.unwrap_or_default())
            .arg(from.map_or("", |from| &from.name));
        let orphan = Orphan::new(self, &owner);
        let (what, generation, name, left): (String, String, String, i64) =
            self.run(&script).await?;
        orphan.known();
        let left = Duration::from_millis(left.max(0).unsigned_abs());
        Ok(match what.as_str() {
            "taken" => Taking::Taken(Lease::new(self.clone(), owner, generation, left)),
            "changed" => Taking::Changed,
            _ => Taking::Held(Holder { name, left }),
        })
    }

    pub(super) fn seal(&self, clear: &[u8]) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        match self.store.sealer.seals() {
            // For this entry and no other.
            true => self.store.sealer.seal(clear, self.names[0].as_bytes()),
            false => Ok(clear.to_vec()),
        }
        .map(Zeroizing::new)
    }

    fn open(&self, value: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        match self.store.sealer.seals() {
            true => Ok(self.store.sealer.open(&value, self.names[0].as_bytes())?),
            false => Ok(value),
        }
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.store.clock.sleep(duration, &Handle::current()).await;
    }

    pub(super) fn lease(&self) -> Duration {
        self.store.lease
    }

    pub(super) fn session_ttl(&self) -> Option<Duration> {
        self.store.session_ttl
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.store.clock
    }
}

/// Pauses between looks: they double, and are drawn at random, so that a fleet does not look in step.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(PAUSES.0)
    }

    /// `most`: when there is something to see at the latest.
    pub(super) fn next(&mut self, most: Duration) -> Duration {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.0 = (self.0 * 2).min(PAUSES.1);
        pause.min(most.max(PAUSES.0 / 2))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_drawn() {
        let most = Duration::from_secs(10);
        let draw = || {
            let mut pauses = Pauses::new();
            [(); 8].map(|()| pauses.next(most).as_micros())
        };
        let (one, other) = (draw(), draw());
        assert_ne!(one, other);
        for (one, whole) in one.iter().zip([20, 40, 80, 160, 320, 500, 500]) {
            assert!((whole * 500..=whole * 1000).contains(one), "{one}");
        }
        let mut pauses = Pauses::new();
        for most in [0, 1, 3].map(Duration::from_millis) {
            assert!(pauses.next(most) <= most.max(Duration::from_millis(10)));
        }
    }
}
