//! [`FileStore`]: a session that several processes of one machine share.
//!
//! Three files, side by side: the session, `….lock` and `….tmp`. The invariants:
//!
//! - Whoever holds the [lock] on the lock file, and nobody else, reads and writes the
//!   other two.
//! - The session is never changed in place: its successor is written in full, synced, and renamed
//!   over it. A crash at any byte leaves the one or the other, and maybe a temporary file, which
//!   the next holder removes.
//! - What was begun is finished under the lock: a job on a blocking thread cannot be cancelled, so
//!   it holds on to the lock, even if its caller goes.

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
    lock::{self, Waiting, blocking},
    token_store::{Locked, LockedSession, TokenStore},
};
use crate::{
    error::BoxError,
    session::stored::{DamagedSession, StoredSession, read_session},
};

/// Keeps the session in a file, for all processes of this machine that know its path: a program
/// that starts again goes on with the session, and programs that run at once share it.
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
/// The file can be read by its owner alone (mode 0600; a directory that has to be made, 0700). On
/// Windows it has the permissions of its directory: give it one that is the user's own. Beside it
/// are `….lock`, which stays (deleting it while the program runs undoes the lock), and for moments
/// `….tmp`. The content is a JSON document with the tokens in clear, unless it is sealed
/// (`sealed_with`, with the feature `seal`).
///
/// Clones wait for each other in the order in which they came; stores of one path that were made
/// one by one, and other processes, in no order. The file must be on a disk of this machine: locks
/// of network file systems keep less than they promise. Symbolic links to the file are refused:
/// under two names it would have two locks.
#[derive(Clone)]
#[must_use]
pub struct FileStore {
    path: PathBuf,
    waiting: Waiting,
    form: Form,
}

impl FileStore {
    /// The session in this file, which need not be there yet. A relative path counts from the
    /// current directory of now. Does no I/O.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            waiting: Waiting::default(),
            form: Form::default(),
        }
    }

    /// How long to wait for the lock, before that is an error. Default: 20 s. A holder keeps it
    /// for one token request.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.waiting.patience = timeout;
        self
    }

    /// The file is encrypted and authenticated with this key (XChaCha20-Poly1305). Default: it is
    /// not.
    ///
    /// That keeps a session secret in backups and on stolen disks, and tells changes that somebody
    /// made; it does not tell an older file of the same key from the newest. A file that is not
    /// sealed is not read: the user signs in again, and then it is.
    #[cfg(feature = "seal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
    pub fn sealed_with(mut self, key: SealingKey) -> Self {
        self.form.sealer.seal_with(key);
        self
    }

    /// A further key that opens the file, the one that was used before, say: what is written is
    /// sealed with that of [`sealed_with`](Self::sealed_with), without which this is an error of
    /// the lock. Further calls add to it. Default: none.
    #[cfg(feature = "seal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "seal")))]
    pub fn with_previous_key(mut self, key: SealingKey) -> Self {
        self.form.sealer.open_with(key);
        self
    }
}

impl TokenStore for FileStore {
    type Locked = Locked;

    /// # Errors
    ///
    /// The lock is not free for [`lock_timeout`](FileStore::lock_timeout) (the error says which
    /// process holds it), the files beside the session cannot be made or used, the file system
    /// knows no locks, or there is no tokio runtime.
    async fn lock(&self) -> Result<Locked, BoxError> {
        self.form.check()?;
        let (files, lock) = Files::of(&self.path)?;
        let held = Held {
            lock: self.waiting.lock(lock).await?,
            files,
            form: self.form.clone(),
        };
        Ok(Locked::new(LockedFile(Arc::new(Mutex::new(held)))))
    }
}

/// Without the keys.
impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("FileStore");
        debug.field("path", &self.path);
        #[cfg(feature = "seal")]
        debug.field("sealer", &self.form.sealer);
        debug.finish_non_exhaustive()
    }
}

/// The session of a [`FileStore`], locked.
struct LockedFile(Arc<Mutex<Held>>);

/// Dropped when the last job on it is done.
struct Held {
    lock: lock::Held,
    files: Files,
    form: Form,
}

impl LockedFile {
    /// One job after the other, each holding on to the lock until it is done.
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
    /// The file cannot be read, is damaged, not as it should be (sealed or not), sealed with
    /// another key, or of a later version. It stays as it is; saving replaces it.
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.run(|held| {
            let read = held.files.read(&held.lock)?;
            let session = read.map(|content| held.form.read(&content));
            // What it is, with the file's name.
            let damaged = |why: String| DamagedSession::new(held.files.error(&why).to_string());
            session.transpose().map_err(|why| damaged(why).into())
        })
        .await
    }

    /// # Errors
    ///
    /// The file cannot be written, or its directory not be synced: the old session is there, or,
    /// with the last of these errors alone, the new one.
    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let session = session.cloned();
        self.run(move |held| match session {
            None => held.files.remove(&held.lock),
            Some(session) => {
                let content = held.form.write(&session);
                let content = content.map_err(|why| held.files.error(&why.to_string()))?;
                held.files.write(&held.lock, &content)
            }
        })
        .await
    }
}

/// What a file has in it: a [`StoredSession`]'s JSON, or that, sealed. Each has a version of its own.
#[derive(Clone, Default)]
struct Form {
    #[cfg(feature = "seal")]
    sealer: Sealer,
}

impl Form {
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
            return Err("sealed, and there is no key to open it (`sealed_with`)".to_owned());
        }
        read_session(content)
    }
}
