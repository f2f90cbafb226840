//! [`RedisStore`]: a [`TokenStore`] in Redis.
//!
//! A rotating refresh token that is sent twice ends the session. Hence the invariants:
//!
//! 1. If Redis fails, or the lease is lost, before a refresh token is sent, the error is a
//!    [`BusyStore`]: the refresh token is not sent, and the token request is retried later.
//! 2. The number of sends is written only while the lease is held.
//! 3. The result of a send is written even after the lease was lost, unless a later lease holder has
//!    written.
//! 4. If Redis fails after a send, a task keeps the lease and retries the write for minutes. No other
//!    process sends the old refresh token meanwhile.
//! 5. The end of a session is written as a tombstone, which late writes do not replace.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

use super::{
    entry::{Entry, pause, pauses},
    lease::{self, Lease, Taking},
};
use crate::{
    clock::Pauses,
    error::{BoxError, Error},
    session::store::{BusyStore, DamagedSession, Locked, LockedSession, StoredSession, TokenStore},
};

/// How long to wait for the lease: less than a cache waits for a token.
const LEASE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to retry the write of the number of sends. After that, the refresh token is not sent.
const COUNT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to retry the write of a session while the caller waits.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to retry it in the background after that: no other process has the new refresh token.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(300);
/// The first pause between two tries to write, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long no process sends a refresh token whose answer was lost: the cause may last, and a second
/// loss ends the session.
const LOST_ANSWER_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait for the session of another process that has sent the refresh token: longer than
/// its pauses between two tries to write.
const LATE_WRITE_WAIT: Duration = Duration::from_secs(2);
/// How long the tombstone of an ended session stays.
const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A store for one session in Redis, which processes share. [`SharedRedis::store`] returns it.
///
/// [`SharedRedis::store`]: super::SharedRedis::store
#[derive(Clone)]
pub struct RedisStore(Entry);

/// A [`RedisStore`], locked.
struct LockedRedis {
    entry: Entry,
    /// `None` once a task writes in the background.
    lease: Option<Lease>,
    /// The number of sends in the last write, whether or not that succeeded.
    counted: Option<u8>,
    /// The last write was the count before a send: the refresh token is in flight, or its answer is lost.
    is_sent: bool,
}

impl RedisStore {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    /// Takes the lease: from its holder if `takes_over`, otherwise when it is free.
    async fn take(&self, takes_over: bool) -> Result<Locked, BoxError> {
        let taking = async {
            let (mut pauses, mut from) = (pauses(), None);
            loop {
                let taking = lease::take(&self.0, None, from.as_ref()).await;
                match taking.map_err(unreachable)? {
                    Taking::Taken(lease) => return Ok::<_, BoxError>(lease),
                    Taking::Held(holder) if takes_over => from = Some(holder),
                    Taking::Held(holder) => self.0.sleep(pause(&mut pauses, holder.left)).await,
                    Taking::Changed => {}
                }
            }
        };
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        match self
            .0
            .clock()
            .timeout(LEASE_TIMEOUT, &runtime, taking)
            .await
        {
            Some(lease) => Ok(Locked::new(LockedRedis {
                entry: self.0.clone(),
                lease: Some(lease?),
                counted: None,
                is_sent: false,
            })),
            None => {
                let why =
                    format!("another process has had the lease in Redis for {LEASE_TIMEOUT:?}");
                Err(BusyStore::new(why).into())
            }
        }
    }
}

impl TokenStore for RedisStore {
    type Locked = Locked;

    async fn lock(&self) -> Result<Locked, BoxError> {
        self.take(false).await
    }

    /// Takes the lease from its holder, whose later writes Redis then rejects.
    async fn take_over(&self) -> Result<Locked, BoxError> {
        self.take(true).await
    }
}

impl LockedSession for LockedRedis {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let session = self.look().await?;
        if session.as_ref().is_some_and(|session| session.sends > 0) {
            // The process that sent the refresh token may have lost its lease during an outage of Redis.
            // Its write is still accepted until this process writes.
            self.entry.sleep(LATE_WRITE_WAIT).await;
            return self.look().await;
        }
        Ok(session)
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let was_sent = std::mem::take(&mut self.is_sent);
        let Some(lease) = &self.lease else {
            return Err(lost());
        };
        // The count before a send, and its undoing, need the lease. The result of a send does not: it is
        // written unless there is a newer session.
        let sends = session.map_or(0, |session| session.sends);
        let before = self.counted.replace(sends);
        let before_sending = sends > before.unwrap_or_default();
        let while_held = before_sending || before.is_some() && !was_sent;
        if before_sending && lease.is_lost() {
            return Err(lost());
        }
        let (json, left) = match session {
            Some(session) => (session.to_json()?, self.entry.session_ttl()),
            None => (SecretString::default(), Some(TOMBSTONE_TTL)),
        };
        let timeout = if before_sending {
            COUNT_TIMEOUT
        } else {
            WRITE_TIMEOUT
        };
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        match write(lease, &json, left, while_held, timeout).await {
            Ok(true) => {
                self.is_sent = before_sending;
                Ok(())
            }
            Ok(false) => Err(lost()),
            Err(cause) if before_sending => Err(unreachable(cause)),
            Err(cause) => {
                if let Some(lease) = self.lease.take() {
                    runtime.spawn(async move {
                        let _ = write(&lease, &json, left, while_held, BACKGROUND_TIMEOUT).await;
                    });
                }
                Err(cause)
            }
        }
    }
}

/// Writes the session, and retries until the timeout. Returns whether it was written: not if there is a
/// newer one, or, `while_held`, if the lease was lost.
async fn write(
    lease: &Lease,
    json: &SecretString,
    left: Option<Duration>,
    while_held: bool,
    timeout: Duration,
) -> Result<bool, BoxError> {
    let began = lease.clock().now();
    let mut pauses = Pauses::new(MIN_PAUSE, MAX_PAUSE);
    loop {
        let clear = json.expose_secret().as_bytes();
        match lease.write(clear, left, while_held).await {
            Err(cause) if lease.clock().now().since(began) >= timeout => return Err(cause),
            Err(_) => lease.sleep(pauses.next()).await,
            written => return written,
        }
    }
}

impl LockedRedis {
    async fn look(&self) -> Result<Option<StoredSession>, BoxError> {
        let seen = self.entry.look().await.map_err(unreachable)?;
        let Some(value) = seen.value else {
            return Ok(None);
        };
        let value = value.map_err(|why| DamagedSession::new(why.to_string()))?;
        let json = str::from_utf8(&value).map_err(|_| DamagedSession::new("not a session"))?;
        Ok(Some(StoredSession::from_json(json)?))
    }
}

impl Drop for LockedRedis {
    fn drop(&mut self) {
        if self.is_sent
            && let Some(lease) = self.lease.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let why = "a refresh token was sent, and its answer was lost";
            runtime.spawn(async move { lease.release(Some((why, LOST_ANSWER_PAUSE))).await });
        }
    }
}

fn unreachable(cause: BoxError) -> BoxError {
    BusyStore::new(format!("Redis failed: {cause}")).into()
}

fn lost() -> BoxError {
    BusyStore::new("the lease in Redis was lost to another process").into()
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.0).finish()
    }
}
