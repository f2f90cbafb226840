//! [`RedisStore`]: what is shared, sealed, and the lease on it.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};
use tokio::{runtime::Handle, task::JoinHandle};
use zeroize::Zeroizing;

use super::{
    client::RedisClient,
    key::TokenKey,
    scripts::{LOOK, RELEASE, RENEW, TAKE, WRITE},
    session::RedisSession,
};
use crate::{
    BoxError, Clock,
    clock::Moment,
    store::{Sealer, SealingKey},
};

/// How long a lease lasts that nobody prolongs.
const LEASE: Duration = Duration::from_secs(10);
/// It is prolonged this often in that time.
const RENEWALS: u32 = 3;
/// How long Redis may take to answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The first pause between two looks at what somebody else is doing, and the longest. Each is drawn
/// from its half to its whole.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Between a lease and why there is none.
const FAILED: &str = "failed ";

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

    /// How long a process that has died keeps the others waiting. Default: 10 s; it is prolonged
    /// three times as often while its holder lives. At least 100 ms.
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

    /// How long a session stays in Redis that nobody goes on with: each new access token begins it
    /// anew. After that, its user signs in again. Default: for ever, so that those who never sign out
    /// stay there. Make it longer than refresh tokens last that are not used.
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
    /// Somebody else has it, this long if nothing else happens.
    Held(Duration),
    /// Somebody else had it, and failed. Nobody gets it for this long.
    Failed(String, Duration),
}

impl Entry {
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, BoxError> {
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
        let script = on(&LOOK, &self.names);
        let (generation, value, left): (String, Vec<u8>, i64) = self.run(&script).await?;
        let value = Zeroizing::new(value);
        Ok(Seen {
            generation,
            value: (!value.is_empty()).then(|| self.open(value)),
            left: u64::try_from(left).ok().map(Duration::from_millis),
        })
    }

    /// `seen`: only if what is there is still of that generation.
    pub(super) async fn take(&self, seen: Option<&str>) -> Result<Taking, BoxError> {
        let owner = format!("{:032x}", rand::rng().random::<u128>());
        let mut script = on(&TAKE, &self.names);
        script
            .arg(&owner)
            .arg(millis(self.store.lease))
            .arg(seen.unwrap_or_default());
        let orphan = Orphan::new(self, &owner);
        let (what, generation, holder, left): (String, String, String, i64) =
            self.run(&script).await?;
        orphan.known();
        let left = Duration::from_millis(left.max(0).unsigned_abs());
        Ok(match (what.as_str(), holder.strip_prefix(FAILED)) {
            ("taken", _) => Taking::Taken(Lease::new(self.clone(), owner, generation, left)),
            ("changed", _) => Taking::Changed,
            (_, Some(why)) => Taking::Failed(why.to_owned(), left),
            (_, None) => Taking::Held(left),
        })
    }

    fn seal(&self, clear: &[u8]) -> Result<Zeroizing<Vec<u8>>, BoxError> {
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

    pub(super) fn session_ttl(&self) -> Option<Duration> {
        self.store.session_ttl
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.store.clock
    }
}

/// The only one who may fetch: until it is dropped, or its process dies.
pub(super) struct Lease {
    entry: Entry,
    owner: String,
    generation: String,
    /// Prolongs it.
    renewing: JoinHandle<()>,
    lost: Arc<AtomicBool>,
    /// When it was taken, by Redis's clock since 1970, and by ours.
    taken: Duration,
    since: Moment,
    released: bool,
}

/// A lease that may have been taken without anybody knowing: dropped, it is given back.
struct Orphan(Option<(Entry, String)>);

impl Orphan {
    fn new(entry: &Entry, owner: &str) -> Self {
        Self(Some((entry.clone(), owner.to_owned())))
    }

    fn known(mut self) {
        self.0 = None;
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let (Some((entry, owner)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(release(entry, owner, None));
        }
    }
}

impl Lease {
    fn new(entry: Entry, owner: String, generation: String, taken: Duration) -> Self {
        let lost = Arc::new(AtomicBool::new(false));
        let renewing = tokio::spawn(renew(entry.clone(), owner.clone(), Arc::clone(&lost)));
        Self {
            taken,
            since: entry.clock().now(),
            entry,
            owner,
            generation,
            renewing,
            lost,
            released: false,
        }
    }

    /// As far as is known. Only Redis knows.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes the value, for `left` if it ends: whether it was, since nobody has written a newer one.
    /// `while_held`: and only if the lease has not been lost.
    pub(super) async fn write(
        &self,
        clear: &[u8],
        left: Option<Duration>,
        while_held: bool,
    ) -> Result<bool, BoxError> {
        let value = match clear.is_empty() {
            true => Zeroizing::default(),
            false => self.entry.seal(clear)?,
        };
        let mut script = on(&WRITE, &self.entry.names);
        script
            .arg(&self.owner)
            .arg(&self.generation)
            .arg(value.as_slice())
            .arg(left.map_or(0, |left| self.time(left)))
            .arg(u8::from(while_held));
        self.entry.run(&script).await
    }

    /// Redis's time in milliseconds, so long from now, whenever that gets there: what is written late
    /// does not end later.
    fn time(&self, from_now: Duration) -> u64 {
        let held = self.entry.clock().now().since(self.since);
        let time = self.taken.saturating_add(held).saturating_add(from_now);
        // Redis's numbers have a sign.
        millis(time).clamp(1, i64::MAX.unsigned_abs())
    }

    /// Gives it to the next. With `why`, nobody gets it for that long, and all who ask hear it.
    pub(super) async fn release(mut self, why: Option<(&str, Duration)>) {
        self.released = true;
        self.renewing.abort();
        release(self.entry.clone(), self.owner.clone(), why).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        // Otherwise the others wait until it has run out.
        if !self.released
            && let Ok(runtime) = Handle::try_current()
        {
            let (entry, owner) = (self.entry.clone(), std::mem::take(&mut self.owner));
            runtime.spawn(release(entry, owner, None));
        }
    }
}

async fn renew(entry: Entry, owner: String, lost: Arc<AtomicBool>) {
    let mut script = on(&RENEW, &entry.names);
    script.arg(&owner).arg(millis(entry.store.lease));
    let mut since = entry.clock().now();
    while !lost.load(Ordering::Relaxed) {
        entry.sleep(entry.store.lease / RENEWALS).await;
        let now = entry.clock().now();
        let own: Result<bool, BoxError> = entry.run(&script).await;
        match own {
            Ok(true) => since = now,
            Ok(false) => lost.store(true, Ordering::Relaxed),
            Err(_) if entry.clock().now().since(since) >= entry.store.lease => {
                lost.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}

fn release(
    entry: Entry,
    owner: String,
    why: Option<(&str, Duration)>,
) -> impl Future<Output = ()> + Send + 'static {
    let (why, pause) = why.unwrap_or_default();
    let why = format!("{FAILED}{why}");
    async move {
        let mut script = on(&RELEASE, &entry.names);
        script.arg(&owner).arg(millis(pause)).arg(&why);
        // If it does not come through, the lease runs out.
        let _: Result<bool, BoxError> = entry.run(&script).await;
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

/// A script, on the two keys of an entry.
fn on<'a>(script: &'a Script, names: &[String; 2]) -> ScriptInvocation<'a> {
    let mut invocation = script.prepare_invoke();
    names.iter().for_each(|name| {
        invocation.key(name);
    });
    invocation
}

fn millis(duration: Duration) -> u64 {
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
