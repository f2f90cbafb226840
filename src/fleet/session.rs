//! [`RedisSession`]: a [`TokenStore`] in Redis.
//!
//! A refresh token that is sent twice costs the session, where it rotates. So everything that goes
//! wrong here keeps it from being sent: an error of Redis, or a lost lease, is a [`BusyStore`], and
//! the token request is tried again later.

use std::{fmt, time::Duration};

use secrecy::ExposeSecret as _;
use tokio::runtime::Handle;

use super::store::{Entry, Lease, Pauses, Taking};
use crate::{
    BoxError,
    store::{BusyStore, DamagedSession, LockedSession, Session, TokenStore},
};

/// How long to wait for the lease: less than a cache waits for a token.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what came for a refresh token is tried to be written: nobody else has it.
const COMMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// How long that a session has ended is remembered, so that nobody late brings it back.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// One session in Redis, for all processes of a fleet: see [`RedisStore::session`].
///
/// [`RedisStore::session`]: super::RedisStore::session
#[derive(Clone)]
pub struct RedisSession(Entry);

/// A [`RedisSession`], locked.
pub struct LockedRedis {
    entry: Entry,
    lease: Lease,
}

impl RedisSession {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    async fn wait(&self) -> Result<Lease, BoxError> {
        let mut pauses = Pauses::new();
        loop {
            let most = match self.0.take(None).await.map_err(unreachable)? {
                Taking::Taken(lease) => return Ok(lease),
                Taking::Held(left) | Taking::Failed(_, left) => left,
                Taking::Changed => Duration::ZERO,
            };
            self.0.sleep(pauses.next(most)).await;
        }
    }
}

impl TokenStore for RedisSession {
    type Locked = LockedRedis;

    async fn lock(&self) -> Result<LockedRedis, BoxError> {
        let runtime = Handle::current();
        let waiting = self.0.clock().timeout(PATIENCE, &runtime, self.wait());
        match waiting.await {
            Some(lease) => Ok(LockedRedis {
                entry: self.0.clone(),
                lease: lease?,
            }),
            None => {
                let why = format!("another process has had the lease in Redis for {PATIENCE:?}");
                Err(BusyStore::new(why).into())
            }
        }
    }
}

impl LockedSession for LockedRedis {
    async fn load(&mut self) -> Result<Option<Session>, BoxError> {
        let seen = self.entry.look().await.map_err(unreachable)?;
        let Some(value) = seen.value else {
            return Ok(None);
        };
        let value = value.map_err(|why| DamagedSession::new(why.to_string()))?;
        let json = str::from_utf8(&value).map_err(|_| DamagedSession::new("not a session"))?;
        Ok(Some(Session::from_json(json)?))
    }

    async fn save(&mut self, session: Option<&Session>) -> Result<(), BoxError> {
        // That a refresh token is about to be sent is only true with the lease. What came for it is
        // written by whoever has it, unless there is something newer.
        let before_sending = session.is_some_and(|session| session.sends > 0);
        if before_sending && self.lease.is_lost() {
            return Err(lost());
        }
        let (json, left) = match session {
            Some(session) => (Some(session.to_json()?), self.entry.session_ttl()),
            None => (None, Some(MEMORY)),
        };
        let clear = json.as_ref().map_or("", |json| json.expose_secret());
        let began = self.entry.clock().now();
        let over = || self.entry.clock().now().since(began) >= COMMIT;
        loop {
            let written = self.lease.write(clear.as_bytes(), left, before_sending);
            match written.await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(lost()),
                Err(cause) if before_sending => return Err(unreachable(cause)),
                Err(cause) if over() => return Err(cause),
                Err(_) => self.entry.sleep(PAUSE).await,
            }
        }
    }
}

fn unreachable(cause: BoxError) -> BoxError {
    BusyStore::new(format!("Redis fails: {cause}")).into()
}

fn lost() -> BoxError {
    BusyStore::new("the lease in Redis was lost to another process").into()
}

impl fmt::Debug for RedisSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisSession").field(&self.0).finish()
    }
}

impl fmt::Debug for LockedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedRedis").finish_non_exhaustive()
    }
}
