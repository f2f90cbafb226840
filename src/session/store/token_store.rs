//! [`TokenStore`]: a lock with a value.
//!
//! A server that rotates refresh tokens takes a second use of one for theft, and revokes the grant.
//! Hence the lock: a process takes it before it reads the session, and releases it after it has
//! written the successor. The next process finds and uses that successor.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use crate::{error::BoxError, session::stored::StoredSession};

/// A place for the session of one user.
///
/// [`MemoryStore`](super::MemoryStore), [`FileStore`](super::FileStore), `KeyringStore` (feature
/// `keyring`) and [`RedisStore`](crate::redis) (feature `redis`) are ready to use. Implement it for a
/// place of your own, such as a row in a database:
///
/// ```
/// use bearer_auth::{BoxError, store::{LockedSession, StoredSession, TokenStore}};
/// use secrecy::ExposeSecret as _;
///
/// # #[derive(Clone)] struct Database;
/// # struct Row;
/// # impl Database {
/// #     async fn lock_row(&self, _: &str) -> Result<Row, BoxError> { Ok(Row) }
/// # }
/// # impl Row {
/// #     async fn read(&mut self) -> Result<Option<String>, BoxError> { Ok(None) }
/// #     async fn write(&mut self, _: Option<&str>) -> Result<(), BoxError> { Ok(()) }
/// # }
/// struct UserRow {
///     database: Database,
///     user: String,
/// }
///
/// /// For example a transaction with `SELECT … FOR UPDATE`.
/// struct LockedRow(Row);
///
/// impl TokenStore for UserRow {
///     type Locked = LockedRow;
///
///     async fn lock(&self) -> Result<LockedRow, BoxError> {
///         Ok(LockedRow(self.database.lock_row(&self.user).await?))
///     }
/// }
///
/// impl LockedSession for LockedRow {
///     async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
///         let json = self.0.read().await?;
///         Ok(json.map(|json| StoredSession::from_json(&json)).transpose()?)
///     }
///
///     async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
///         let json = session.map(StoredSession::to_json).transpose()?;
///         self.0.write(json.as_ref().map(|json| json.expose_secret())).await
///     }
/// }
/// ```
pub trait TokenStore: Send + Sync + 'static {
    /// The locked session. Dropping it releases the lock.
    type Locked: LockedSession;

    /// Waits for the lock, and takes it. Of all processes that share the store, only the lock holder
    /// reads, refreshes and writes the session. Dropping the value releases the lock; so does the end of
    /// the process.
    ///
    /// # Errors
    ///
    /// The store cannot be locked. If another process has the lock for too long, return a
    /// [`BusyStore`]: no refresh token is sent, and the token request is retried after the usual
    /// backoff. After any other error the session continues from memory, if it is known there.
    fn lock(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send;

    /// Takes the lock for a sign-in or a sign-out. A store that can reject late writes of a former
    /// holder may take the lock from the current one, so that a sign-in does not wait. The default
    /// calls [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock). A new session is then in memory only.
    fn take_over(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send {
        self.lock()
    }
}

impl<T: TokenStore> TokenStore for Arc<T> {
    type Locked = T::Locked;

    fn lock(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send {
        (**self).lock()
    }

    fn take_over(&self) -> impl Future<Output = Result<Self::Locked, BoxError>> + Send {
        (**self).take_over()
    }
}

/// The session of a [`TokenStore`], locked. [`TokenStore`] has an example.
pub trait LockedSession: Send + 'static {
    /// Reads the session; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The session cannot be read. If the content is not a session, return a
    /// [`DamagedSession`](super::DamagedSession): the user has to sign in again.
    fn load(&mut self) -> impl Future<Output = Result<Option<StoredSession>, BoxError>> + Send;

    /// Replaces the session, so that a crash at any moment leaves the old one or the new one. `None`
    /// removes it.
    ///
    /// # Errors
    ///
    /// The session cannot be written. The old one is still there.
    fn save(
        &mut self,
        session: Option<&StoredSession>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// The locked session of a store of this crate.
pub struct Locked(Box<dyn ErasedLocked>);

impl Locked {
    pub(crate) fn new(locked: impl LockedSession) -> Self {
        Self(Box::new(locked))
    }
}

impl LockedSession for Locked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.0.load_boxed().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        self.0.save_boxed(session).await
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked")
    }
}

/// The error of a store whose lock another process has, or may have.
///
/// - From [`TokenStore::lock`], [`LockedSession::load`], or the write before a refresh token is sent:
///   the refresh token is not sent, since the other process may be sending it.
/// - From the write of the refreshed session: the lock was lost, and a newer session in the store wins.
#[derive(Debug)]
pub struct BusyStore(String);

impl BusyStore {
    /// Returns the error. `why` is for humans: for example, which process has the lock.
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

/// A store that failed while the session continues without it.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoreError {
    /// The operation that failed.
    pub operation: StoreOperation,
    /// The store's own error.
    pub cause: BoxError,
}

impl StoreError {
    pub(crate) fn new(operation: StoreOperation, cause: BoxError) -> Self {
        Self { operation, cause }
    }
}

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreOperation {
    /// Taking the lock.
    Lock,
    /// Reading the session.
    Load,
    /// Writing the session.
    Save,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.operation {
            StoreOperation::Lock => "the token store cannot be locked",
            StoreOperation::Load => "the session cannot be read from the token store",
            StoreOperation::Save => "the session cannot be written to the token store",
        })
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.cause.as_ref())
    }
}

/// A callback for errors of a store.
pub(crate) type OnStoreError = Arc<dyn Fn(&StoreError) + Send + Sync>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TokenStore`] behind a pointer.
pub(crate) trait ErasedStore: Send + Sync + 'static {
    fn lock_boxed(&self) -> BoxFuture<'_, Result<Locked, BoxError>>;
    fn take_over_boxed(&self) -> BoxFuture<'_, Result<Locked, BoxError>>;
}

/// [`LockedSession`] behind a pointer.
trait ErasedLocked: Send + 'static {
    fn load_boxed(&mut self) -> BoxFuture<'_, Result<Option<StoredSession>, BoxError>>;
    fn save_boxed<'a>(
        &'a mut self,
        session: Option<&'a StoredSession>,
    ) -> BoxFuture<'a, Result<(), BoxError>>;
}

impl<S: TokenStore> ErasedStore for S {
    fn lock_boxed(&self) -> BoxFuture<'_, Result<Locked, BoxError>> {
        Box::pin(async move { Ok(Locked::new(self.lock().await?)) })
    }

    fn take_over_boxed(&self) -> BoxFuture<'_, Result<Locked, BoxError>> {
        Box::pin(async move { Ok(Locked::new(self.take_over().await?)) })
    }
}

impl<L: LockedSession> ErasedLocked for L {
    fn load_boxed(&mut self) -> BoxFuture<'_, Result<Option<StoredSession>, BoxError>> {
        Box::pin(self.load())
    }

    fn save_boxed<'a>(
        &'a mut self,
        session: Option<&'a StoredSession>,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.save(session))
    }
}
