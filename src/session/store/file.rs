//! [`FileStore`]: a session in a file, which the processes of one machine share.
//!
//! Three files in one directory: the session, `….lock` and `….tmp`. Invariants:
//!
//! 1. Only the holder of the [lock] on `….lock` reads and writes the other two.
//! 2. The session is never changed in place: its successor is written to `….tmp`, synced, and renamed
//!    over it. A crash leaves the old session or the new one, and perhaps `….tmp`, which the next lock
//!    holder removes.
//! 3. A job on a blocking thread cannot be cancelled: it keeps the lock until it is done, even if its
//!    caller is cancelled.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

#[cfg(feature = "seal")]
use super::sealed::{Sealer, SealingKey};
use super::{
    disk::{Files, SEALED},
    lock::{self, LockQueue, blocking},
    token_store::{Locked, LockedSession, TokenStore},
};
use crate::{
    error::BoxError,
    session::stored::{DamagedSession, StoredSession, read_session},
};

/// A store in a file, shared by all processes of this machine that use the same path. The session
/// outlives the process.
///
/// ```no_run
/// use bearer_auth::{AuthorizationCode, store::FileStore};
///
/// let auth = AuthorizationCode::builder("https://idp.example/authorize", "https://idp.example/token", "client-id")
///     .redirect_uri("https://app.example/callback")
///     .store(FileStore::new("/home/me/.config/app/session"))
///     .on_store_error(|error| eprintln!("{error}: {:?}", error.cause))
///     .build()?;
/// let session = auth.session();
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
///
/// Only the owner can read the file (mode 0600; directories are created with 0700). On Windows the file
/// has the permissions of its directory: use one that belongs to the user. The same directory has
/// `….lock`, which stays (deleting it while a program runs breaks the lock), and during a write
/// `….tmp`. The content is JSON with the tokens in clear text, unless it is sealed (`sealed_with`, with
/// the feature `seal`).
///
/// Clones take the lock in the order of their calls; separate stores of one path, and other processes,
/// in no order. The file must be on a local disk: locks of network file systems are unreliable.
/// Symbolic links to the file are refused: two names would have two locks.
#[derive(Clone)]
#[must_use]
pub struct FileStore {
    path: PathBuf,
    queue: LockQueue,
    format: Format,
}

impl FileStore {
    /// Returns the store at `path`, where the file need not exist yet. A relative path is resolved now,
    /// against the current directory. Does no I/O.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            queue: LockQueue::default(),
            format: Format::default(),
        }
    }

    /// Sets how long to wait for the lock before that is an error. Defaults to 20 s. A lock holder
    /// keeps the lock for one token request.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.queue.timeout = timeout;
        self
    }

    /// Sets the key that encrypts and authenticates the file (XChaCha20-Poly1305). By default the file
    /// is in clear text.
    ///
    /// This keeps a session secret in backups and on stolen disks, and detects changes. It does not
    /// detect an older file of the same key. An unsealed file is an error: the user signs in again,
    /// which replaces it.
    #[cfg(feature = "seal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
    pub fn sealed_with(mut self, key: SealingKey) -> Self {
        self.format.sealer.seal_with(key);
        self
    }

    /// Adds a key that opens the file, such as the one before a change of keys. Writing uses the key
    /// of [`sealed_with`](Self::sealed_with); without that, locking is an error.
    #[cfg(feature = "seal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
    pub fn with_previous_key(mut self, key: SealingKey) -> Self {
        self.format.sealer.open_with(key);
        self
    }
}

impl TokenStore for FileStore {
    type Locked = Locked;

    /// # Errors
    ///
    /// The lock was not free within [`lock_timeout`](FileStore::lock_timeout) (the error names the
    /// process that has it), the lock file cannot be created or used, the file system has no locks, or
    /// there is no tokio runtime.
    async fn lock(&self) -> Result<Locked, BoxError> {
        self.format.check()?;
        let (files, lock) = Files::of(&self.path)?;
        let held = Held {
            lock: self.queue.lock(lock).await?,
            files,
            format: self.format.clone(),
        };
        Ok(Locked::new(LockedFile(Arc::new(Mutex::new(held)))))
    }
}

/// Hides the keys.
impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("FileStore");
        debug.field("path", &self.path);
        #[cfg(feature = "seal")]
        debug.field("sealer", &self.format.sealer);
        debug.finish_non_exhaustive()
    }
}

/// The session of a [`FileStore`], locked.
struct LockedFile(Arc<Mutex<Held>>);

/// Dropped when the last job on it is done.
struct Held {
    lock: lock::Held,
    files: Files,
    format: Format,
}

impl LockedFile {
    /// Runs one job after the other. Each keeps the lock until it is done.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Held) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let held = Arc::clone(&self.0).lock_owned().await;
        blocking(move || job(&held)).await
    }
}

impl LockedSession for LockedFile {
    /// # Errors
    ///
    /// The file cannot be read, is damaged, of a later version, or sealed with another key; or it is
    /// sealed and no key is configured, or the reverse. The file stays; saving replaces it.
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.run(|held| {
            let read = held.files.read(&held.lock)?;
            let session = read.map(|content| held.format.read(&content));
            let damaged = |why: String| DamagedSession::new(held.files.error(&why).to_string());
            session.transpose().map_err(|why| damaged(why).into())
        })
        .await
    }

    /// # Errors
    ///
    /// The file cannot be written: the old session is still there. Or its directory cannot be synced:
    /// then the new session is there, and may be lost in a crash of the machine.
    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let session = session.cloned();
        self.run(move |held| match session {
            None => held.files.remove(&held.lock),
            Some(session) => {
                let content = held.format.write(&session);
                let content = content.map_err(|why| held.files.error(&why.to_string()))?;
                held.files.write(&held.lock, &content)
            }
        })
        .await
    }
}

/// The file's content: the JSON of a [`StoredSession`], in clear text or sealed. Both have a version.
#[derive(Clone, Default)]
struct Format {
    #[cfg(feature = "seal")]
    sealer: Sealer,
}

impl Format {
    fn check(&self) -> Result<(), BoxError> {
        #[cfg(feature = "seal")]
        self.sealer.check()?;
        Ok(())
    }

    fn write(&self, session: &StoredSession) -> Result<Zeroizing<Vec<u8>>, BoxError> {
        let json = session.to_json()?;
        let json = json.expose_secret().as_bytes();
        #[cfg(feature = "seal")]
        if self.sealer.seals() {
            return Ok(self.sealer.seal(json, b"")?.into());
        }
        Ok(json.to_vec().into())
    }

    fn read(&self, content: &[u8]) -> Result<StoredSession, String> {
        #[cfg(feature = "seal")]
        if self.sealer.seals() {
            let opened = self
                .sealer
                .open(content, b"")
                .map_err(|why| why.to_string())?;
            return read_session(&opened);
        }
        if content.starts_with(SEALED) {
            return Err("sealed, and no key is configured: set `sealed_with`".to_owned());
        }
        read_session(content)
    }
}
