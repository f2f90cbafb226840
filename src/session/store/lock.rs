//! A lock that processes share: the operating system's, on a file that nothing else is done with.
//!
//! Invariants: the lock dies with its holder, so nothing is ever left locked; hence the file itself
//! is never deleted, since somebody could hold a lock on what is no longer there. Nobody blocks a
//! thread of the runtime: files are for its blocking threads, and waiting is done by asking again,
//! so that a waiter who goes leaves nothing behind.

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
    error::BoxError,
};

/// How long to wait for the lock, if nobody says otherwise: less than a cache waits for a token, so
/// that it learns why there is none.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first pause between two tries, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The operating system's lock on the lock file. Released when dropped, and when the process ends.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing does it, too; Windows says nothing about how soon.
        let _ = FileExt::unlock(&self.0);
    }
}

/// The lock, and this process's turn.
pub(super) struct Held {
    _lock: Lock,
    /// After the lock, so that the next one of this process finds it free.
    _turn: OwnedMutexGuard<()>,
}

/// Waits for locks: one of all clones at a time asks the operating system.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) patience: Duration,
    turn: Arc<Mutex<()>>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            turn: Arc::default(),
        }
    }
}

impl Waiting {
    /// The lock, as soon as it is free.
    pub(super) async fn lock(&self, file: LockFile) -> Result<Held, BoxError> {
        let runtime = Handle::try_current()?;
        let clock = Clock::default();
        let waiting = self.wait(&file, &clock, &runtime);
        if let Some(locked) = clock.timeout(self.patience, &runtime, waiting).await {
            return locked;
        }
        let patience = self.patience;
        Err(blocking(move || Ok(file.taken(patience))).await?)
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
            let asked = file.clone();
            if let Some(lock) = blocking(move || asked.try_lock()).await? {
                return Ok(Held {
                    _lock: lock,
                    _turn: turn,
                });
            }
            clock.sleep(pauses.next(), runtime).await;
        }
    }
}

/// Where the lock is.
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

    /// What a holder who died may have left, and the next one removes.
    pub(super) fn with_leftover(mut self, leftover: PathBuf) -> Self {
        self.leftover = Some(leftover);
        self
    }

    /// `None`: somebody else has it.
    fn try_lock(&self) -> Result<Option<Lock>, BoxError> {
        // Opened anew each time: a lock on a file that was deleted meanwhile excludes nobody.
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
        // For those who wait in vain. Nothing depends on it.
        let _ = lock.0.set_len(0);
        let _ = (&lock.0).write_all(process::id().to_string().as_bytes());
        if let Some(leftover) = &self.leftover {
            // Nobody but the lock's holder writes it. If it cannot be removed, neither can it be
            // replaced, and writing says so.
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
        // It may be somebody's who let all read it; it is locked all the same.
        let _ = narrow(&file);
        Ok(file)
    }

    /// The error of one who has waited in vain.
    fn taken(&self, patience: Duration) -> BoxError {
        let mut written = String::new();
        let holder = options()
            .read(true)
            .open(&self.path)
            .and_then(|file| file.take(20).read_to_string(&mut written))
            .ok()
            .and_then(|_| written.parse::<u32>().ok());
        let holder = match holder {
            None => "another process holds it".to_owned(),
            Some(id) if id == process::id() => "this process itself holds it".to_owned(),
            Some(id) => format!("process {id} holds it, as far as it is known"),
        };
        let path = self.path.display();
        BusyStore::new(format!("{path}: not free for {patience:?}: {holder}")).into()
    }
}

/// `job`, on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    let runtime = Handle::try_current()?;
    let done = runtime.spawn_blocking(job).await;
    done.map_err(io::Error::from)?
}
