//! Where sessions live: [`TokenStore`].
//!
//! A server that rotates refresh tokens takes a second use of one for theft, and revokes the whole
//! grant. So a store is not a place to put things but a *lock with a value*: whoever wants to
//! exchange a refresh token holds the lock from before it reads the session until after it has
//! written the next one. Whoever comes second finds the result of the first, and uses that.

mod disk;
mod file;
#[cfg(feature = "keyring")]
mod keyring;
mod lock;
mod memory;
#[cfg(feature = "seal")]
pub(crate) mod sealed;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

#[cfg(feature = "keyring")]
#[cfg_attr(docsrs, doc(cfg(feature = "keyring")))]
pub use self::keyring::{KeyringStore, LockedKeyring};
#[cfg(feature = "redis")]
pub(crate) use self::sealed::Sealer;
#[cfg(feature = "seal")]
#[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
pub use self::sealed::SealingKey;
pub use self::{
    file::{FileStore, LockedFile},
    memory::MemoryStore,
};
use crate::{
    clock::Clock,
    error::{BoxError, Error},
    token::TokenResponse,
};

/// A place for the session of one signed-in user.
///
/// Ready are [`MemoryStore`], [`FileStore`] and, with the feature `keyring`, `KeyringStore`. One of
/// your own (a database row, say) is two traits, of which this is the lock.
pub trait TokenStore: Send + Sync + 'static {
    /// What holds the lock.
    type Locked: LockedSession;

    /// Waits for the lock, and takes it. Whoever holds it is the only one, among all processes that
    /// share the store, who reads, exchanges and writes. Dropping it releases it; so does the end
    /// of the process.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from locking. If somebody else holds the lock for too long, a
    /// [`BusyStore`]: nothing is exchanged, and the token request is tried again after the usual
    /// backoff. After any other error, the session goes on from memory, without the store, if it is
    /// there.
    fn lock(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send;

    /// The lock for a session that begins, or ends, whatever there is. A store that can refuse what a
    /// former holder writes late takes it from them: somebody has signed in, and should not wait for
    /// them. The default waits as [`lock`](Self::lock) does.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock). The session that begins is in memory alone then.
    fn lock_anew(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send {
        self.lock()
    }
}

/// The one session of a [`TokenStore`], locked.
pub trait LockedSession: Send + 'static {
    /// The session; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read. If what was read is no session, a [`DamagedSession`]: nobody can go on
    /// with it, and the user has to sign in again.
    fn load(&mut self) -> impl Future<Output = Result<Option<Session>, BoxError>> + Send;

    /// Replaces the session, so that a crash at any moment leaves the old one or the new one.
    /// `None` forgets it.
    ///
    /// # Errors
    ///
    /// It cannot be written. The old one is still there.
    fn save(
        &mut self,
        session: Option<&Session>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// What a store has is no session, and trying again does not help.
#[derive(Debug)]
pub struct DamagedSession(String);

impl DamagedSession {
    /// `why` is for people, and shows nothing of what was read.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for DamagedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DamagedSession {}

/// Somebody else has held the lock of a store for too long, and may be exchanging the refresh token;
/// or it cannot be known. From any step before the refresh token is sent, it keeps it from being sent.
/// From writing what came for it: somebody else has written something newer, which counts.
#[derive(Debug)]
pub struct BusyStore(String);

impl BusyStore {
    /// `why` is for people: who holds it, say.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for BusyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BusyStore {}

/// A signed-in session: what is needed to go on with it, in this process or in another.
///
/// `Debug` shows no secret.
#[derive(Clone)]
pub struct Session {
    pub(crate) refresh_token: Option<SecretString>,
    /// How often the refresh token was sent, as far as is known, with no answer of use.
    pub(crate) sends: u8,
    pub(crate) access: Option<Access>,
}

/// The access token that came with it last.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) token: SecretString,
    /// The authentication scheme, `Bearer` as a rule.
    pub(crate) scheme: String,
    pub(crate) expires_at: Option<SystemTime>,
    /// When it was asked for.
    pub(crate) since: SystemTime,
    pub(crate) scope: Option<String>,
}

impl Access {
    pub(crate) fn response(&self) -> Result<TokenResponse, Error> {
        let mut response =
            TokenResponse::builder(self.token.expose_secret()).scheme(self.scheme.as_str());
        if let Some(end) = self.expires_at {
            // As if it had come just now, so that its margins are those of its whole life.
            let age = Clock::default().system_time().duration_since(self.since);
            response = match (end.duration_since(self.since), age) {
                (Ok(lifetime), Ok(age)) => response.expires_in(lifetime).age(age),
                _ => response.expires_at(end),
            };
        }
        if let Some(scope) = &self.scope {
            response = response.scope(scope.as_str());
        }
        response.build()
    }
}

/// As it is written: version 1.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    refresh_token: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    sends: u8,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    access_token: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

const VERSION: u32 = 1;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// How everything begins that is sealed, in all versions; no JSON does.
pub(crate) const SEALED: &[u8; 8] = b"ba-seal\n";

impl Session {
    /// For stores: a JSON document. It is as secret as the tokens in it.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn to_json(&self) -> Result<SecretString, BoxError> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        let access = self.access.as_ref();
        let written = Written {
            version: VERSION,
            refresh_token: self
                .refresh_token
                .as_ref()
                .map(|t| t.expose_secret().into()),
            sends: self.sends,
            access_token: access.map(|access| access.token.expose_secret().into()),
            scheme: access.map(|access| access.scheme.clone()),
            expires_at: access.and_then(|access| access.expires_at).map(seconds),
            since: access.map(|access| seconds(access.since)),
            scope: access.and_then(|access| access.scope.clone()),
        };
        Ok(serde_json::to_string(&written)?.into())
    }

    /// What [`to_json`](Self::to_json) wrote, by this version of the crate or an earlier one.
    ///
    /// # Errors
    ///
    /// It is damaged, or from a later version.
    pub fn from_json(json: &str) -> Result<Self, DamagedSession> {
        let written: Written<'_> = serde_json::from_str(json)
            // Its own words may show what it read.
            .map_err(|error| {
                let (what, at) = (error.classify(), error.column());
                DamagedSession(format!("not a session: {what:?} at {at}"))
            })?;
        if written.version != VERSION {
            let why = format!("a session of version {}", written.version);
            return Err(DamagedSession(why));
        }
        let time = |seconds: u64| {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.ok_or_else(|| DamagedSession::new("a session with a time that cannot be"))
        };
        let access = match written.access_token {
            None => None,
            Some(token) => Some(Access {
                token: SecretString::from(&*token),
                scheme: written.scheme.unwrap_or_else(|| "Bearer".to_owned()),
                expires_at: written.expires_at.map(time).transpose()?,
                since: written.since.map_or(Ok(SystemTime::UNIX_EPOCH), time)?,
                scope: written.scope,
            }),
        };
        Ok(Self {
            refresh_token: written
                .refresh_token
                .map(|token| SecretString::from(&*token)),
            sends: written.sends,
            access,
        })
    }

    /// The refresh token, if the server gave one.
    pub fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref()
    }
}

/// The content of a store, or what is wrong with it.
fn read_session(content: &[u8]) -> Result<Session, String> {
    if content.is_empty() {
        return Err("empty: not a session".to_owned());
    }
    let json = str::from_utf8(content).map_err(|_| "not UTF-8: not a session")?;
    Session::from_json(json).map_err(|why| why.to_string())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("refresh_token", &self.refresh_token)
            .field("expires_at", &self.access.as_ref().map(|a| a.expires_at))
            .finish_non_exhaustive()
    }
}

/// [`TokenStore`] behind a pointer.
pub(crate) trait ErasedStore: Send + Sync + 'static {
    fn lock_boxed(&self, anew: bool) -> BoxFuture<'_, Result<Box<dyn ErasedLocked>, BoxError>>;
}

/// [`LockedSession`] behind a pointer.
pub(crate) trait ErasedLocked: Send + 'static {
    fn load_boxed(&mut self) -> BoxFuture<'_, Result<Option<Session>, BoxError>>;
    fn save_boxed<'a>(
        &'a mut self,
        session: Option<&'a Session>,
    ) -> BoxFuture<'a, Result<(), BoxError>>;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<S: TokenStore> ErasedStore for S {
    fn lock_boxed(&self, anew: bool) -> BoxFuture<'_, Result<Box<dyn ErasedLocked>, BoxError>> {
        Box::pin(async move {
            let locked = match anew {
                false => self.lock().await?,
                true => self.lock_anew().await?,
            };
            Ok(Box::new(locked) as Box<dyn ErasedLocked>)
        })
    }
}

impl<L: LockedSession> ErasedLocked for L {
    fn load_boxed(&mut self) -> BoxFuture<'_, Result<Option<Session>, BoxError>> {
        Box::pin(self.load())
    }

    fn save_boxed<'a>(
        &'a mut self,
        session: Option<&'a Session>,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.save(session))
    }
}
