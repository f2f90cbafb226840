//! A lock among processes: the operating system's lock on a file of its own.
//!
//! Invariants:
//!
//! 1. The operating system releases the lock when its holder ends: no lock is left behind.
//! 2. The lock file is never deleted: a lock on a deleted file excludes no other process.
//! 3. File operations run on the runtime's blocking threads.
//! 4. A waiter polls the lock, so that a cancelled waiter leaves nothing behind.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use fs4::{FileExt, TryLockError};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
};

use super::{
    private_file::{check_regular, create_directory, failed, narrow, options},
    token_store::BusyStore,
};
use crate::{
    clock::{Clock, Pauses},
    error::{BoxError, Error},
};

/// The default of `lock_timeout`: shorter than a cache waits for a token, so that callers get this
/// error and not a timeout.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// The first pause between two tries, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The operating system's lock on the lock file. Released when dropped, and when the process ends.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it too, but on Windows at no defined time.
        let _ = FileExt::unlock(&self.0);
    }
}

/// A lock that is held.
pub(super) struct Held {
    _lock: Lock,
    /// Dropped after the lock, so that the next waiter of this process finds the lock free.
    _turn: OwnedMutexGuard<()>,
}

/// The waiters of one store and its clones: one at a time polls the operating system's lock.
#[derive(Clone)]
pub(super) struct LockQueue {
    pub(super) timeout: Duration,
    turn: Arc<Mutex<()>>,
}

impl Default for LockQueue {
    fn default() -> Self {
        Self {
            timeout: LOCK_TIMEOUT,
            turn: Arc::default(),
        }
    }
}

impl LockQueue {
    /// Waits for the lock, and takes it.
    ///
    /// # Errors
    ///
    /// [`BusyStore`] after the timeout; the lock file cannot be used; there is no tokio runtime.
    pub(super) async fn lock(&self, file: LockFile) -> Result<Held, BoxError> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        let clock = Clock::default();
        let waiting = self.wait(&file, &clock, &runtime);
        if let Some(locked) = clock.timeout(self.timeout, &runtime, waiting).await {
            return locked;
        }
        let timeout = self.timeout;
        Err(blocking(move || Ok(file.busy(timeout))).await?)
    }

    async fn wait(
        &self,
        file: &LockFile,
        clock: &Clock,
        runtime: &Handle,
    ) -> Result<Held, BoxError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let mut pauses = Pauses::new(MIN_PAUSE, MAX_PAUSE);
        loop {
            let file = file.clone();
            if let Some(lock) = blocking(move || file.try_lock()).await? {
                return Ok(Held {
                    _lock: lock,
                    _turn: turn,
                });
            }
            clock.sleep(pauses.next(), runtime).await;
        }
    }
}

/// The file that is locked.
#[derive(Clone)]
pub(super) struct LockFile {
    path: PathBuf,
    directory: PathBuf,
    leftover: Option<PathBuf>,
}

impl LockFile {
    pub(super) fn at(path: &Path) -> Result<Self, BoxError> {
        let (Some(_), Some(directory)) = (path.file_name(), path.parent()) else {
            return Err(failed(path, "not the path of a file", None));
        };
        Ok(Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            leftover: None,
        })
    }

    /// Sets a file that a killed lock holder may leave, and that the next one removes.
    pub(super) fn with_leftover(mut self, leftover: PathBuf) -> Self {
        self.leftover = Some(leftover);
        self
    }

    /// Returns `None` if another holder has the lock.
    fn try_lock(&self) -> Result<Option<Lock>, BoxError> {
        // Opened for each try: the user may have deleted the file meanwhile.
        let file = self.open();
        let file = file.map_err(|e| failed(&self.path, "cannot be opened", Some(e)))?;
        match FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => {
                return Err(failed(&self.path, "cannot be locked", Some(e)));
            }
        }
        let lock = Lock(file);
        // For the error text of a waiter that times out. Nothing else depends on it.
        let _ = lock.0.set_len(0);
        let _ = (&lock.0).write_all(process::id().to_string().as_bytes());
        if let Some(leftover) = &self.leftover {
            // Only the lock holder writes it. If removing fails, the next write fails and reports it.
            let _ = fs::remove_file(leftover);
        }
        Ok(Some(lock))
    }

    fn open(&self) -> io::Result<File> {
        let mut options = options();
        options.read(true).write(true).create(true).truncate(false);
        let file = match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_directory(&self.directory)?;
                options.open(&self.path)?
            }
            opened => opened?,
        };
        check_regular(&file.metadata()?)?;
        // The file may exist with wider permissions. It works as a lock all the same.
        let _ = narrow(&file);
        Ok(file)
    }

    /// The error of a waiter that has timed out.
    fn busy(&self, timeout: Duration) -> BoxError {
        let mut written = String::new();
        let holder = options()
            .read(true)
            .open(&self.path)
            .and_then(|file| file.take(20).read_to_string(&mut written))
            .ok()
            .and_then(|_| written.parse::<u32>().ok());
        let holder = match holder {
            None => "another process has the lock".to_owned(),
            Some(id) if id == process::id() => "this process itself has the lock".to_owned(),
            Some(id) => format!("process {id} has the lock, according to the lock file"),
        };
        let path = self.path.display();
        BusyStore::new(format!("{path}: not free for {timeout:?}: {holder}")).into()
    }
}

/// Runs `job` on a blocking thread of the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
    let done = runtime.spawn_blocking(job).await;
    done.map_err(io::Error::from)?
}
