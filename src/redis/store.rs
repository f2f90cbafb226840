//! [`RedisStore`]: a [`TokenStore`] in Redis.
//!
//! A refresh token that is sent twice costs the session, where it rotates. So everything that goes
//! wrong here keeps it from being sent: an error of Redis, or a lost lease, is a [`BusyStore`], and
//! the token request is tried again later. What came for it is written if it takes minutes, by a task
//! that keeps the lease, so that nobody sends the old one meanwhile.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

use super::{
    entry::{Entry, pause, pauses},
    lease::{self, Lease, Taking},
};
use crate::{
    clock::Pauses,
    error::BoxError,
    session::store::{BusyStore, DamagedSession, Locked, LockedSession, StoredSession, TokenStore},
};

/// How long to wait for the lease: less than a cache waits for a token.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is tried to say that a refresh token is about to be sent. Then it is not.
const COUNT: Duration = Duration::from_secs(3);
/// How long what came for it is tried to be written while somebody waits for it, and then in the
/// background: nobody else has it.
const COMMIT: Duration = Duration::from_secs(1);
const BACKGROUND: Duration = Duration::from_secs(300);
/// The first pause between two tries to write, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long nobody sends a refresh token whose answer was lost: what has lost it may lose another, and
/// the second is the last.
const AFTER_LOSS: Duration = Duration::from_secs(5);
/// How long to wait for what came for a refresh token that somebody has sent: for longer than they
/// pause between two tries to write it.
const LATE: Duration = Duration::from_secs(2);
/// How long that a session has ended is remembered, so that nobody late brings it back.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps one session in Redis, for all processes that share it. [`SharedRedis::store`] returns it.
///
/// [`SharedRedis::store`]: super::SharedRedis::store
#[derive(Clone)]
pub struct RedisStore(Entry);

/// A [`RedisStore`], locked.
struct LockedRedis {
    entry: Entry,
    /// Until something is written in the background, which is the last that is done with it.
    lease: Option<Lease>,
    /// How often the refresh token has been sent, as it was tried to be written last.
    counted: Option<u8>,
    /// It was sent, as far as is known.
    is_sent: bool,
}

impl RedisStore {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    /// From whoever has it, or when they give it back.
    async fn take(&self, at_once: bool) -> Result<Locked, BoxError> {
        let taking = async {
            let (mut pauses, mut from) = (pauses(), None);
            loop {
                let taking = lease::take(&self.0, None, from.as_ref()).await;
                match taking.map_err(unreachable)? {
                    Taking::Taken(lease) => return Ok::<_, BoxError>(lease),
                    Taking::Held(holder) if at_once => from = Some(holder),
                    Taking::Held(holder) => self.0.sleep(pause(&mut pauses, holder.left)).await,
                    Taking::Changed => {}
                }
            }
        };
        let runtime = Handle::try_current()?;
        match self.0.clock().timeout(PATIENCE, &runtime, taking).await {
            Some(lease) => Ok(Locked::new(LockedRedis {
                entry: self.0.clone(),
                lease: Some(lease?),
                counted: None,
                is_sent: false,
            })),
            None => {
                let why = format!("another process has had the lease in Redis for {PATIENCE:?}");
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

    /// Whoever has the lease is late: what they write is refused.
    async fn take_over(&self) -> Result<Locked, BoxError> {
        self.take(true).await
    }
}

impl LockedSession for LockedRedis {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let session = self.look().await?;
        if session.as_ref().is_some_and(|session| session.sends > 0) {
            // Who has sent it may have been out of reach until now, for longer than a lease lasts.
            // What they write counts until this process writes.
            self.entry.sleep(LATE).await;
            return self.look().await;
        }
        Ok(session)
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let was_sent = std::mem::take(&mut self.is_sent);
        let Some(lease) = &self.lease else {
            return Err(lost());
        };
        // That a refresh token is about to be sent, or was not after all, is only true with the lease.
        // What came for it is written by whoever has it, unless there is something newer.
        let sends = session.map_or(0, |session| session.sends);
        let before = self.counted.replace(sends);
        let before_sending = sends > before.unwrap_or_default();
        let while_held = before_sending || before.is_some() && !was_sent;
        if before_sending && lease.is_lost() {
            return Err(lost());
        }
        let (json, left) = match session {
            Some(session) => (session.to_json()?, self.entry.session_ttl()),
            None => (SecretString::default(), Some(MEMORY)),
        };
        let most = if before_sending { COUNT } else { COMMIT };
        match write(lease, &json, left, while_held, most).await {
            Ok(true) => {
                self.is_sent = before_sending;
                Ok(())
            }
            Ok(false) => Err(lost()),
            Err(cause) if before_sending => Err(unreachable(cause)),
            Err(cause) => {
                if let Some(lease) = self.lease.take() {
                    tokio::spawn(async move {
                        let _ = write(&lease, &json, left, while_held, BACKGROUND).await;
                    });
                }
                Err(cause)
            }
        }
    }
}

/// Tries for so long: whether it was written, since there is nothing newer.
async fn write(
    lease: &Lease,
    json: &SecretString,
    left: Option<Duration>,
    while_held: bool,
    most: Duration,
) -> Result<bool, BoxError> {
    let began = lease.clock().now();
    let mut pauses = Pauses::new(MIN_PAUSE, MAX_PAUSE);
    loop {
        let clear = json.expose_secret().as_bytes();
        match lease.write(clear, left, while_held).await {
            Err(cause) if lease.clock().now().since(began) >= most => return Err(cause),
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
            let why = "a refresh token was sent, and there was no answer of use";
            runtime.spawn(async move { lease.release(Some((why, AFTER_LOSS))).await });
        }
    }
}

fn unreachable(cause: BoxError) -> BoxError {
    BusyStore::new(format!("Redis fails: {cause}")).into()
}

fn lost() -> BoxError {
    BusyStore::new("the lease in Redis was lost to another process").into()
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.0).finish()
    }
}
