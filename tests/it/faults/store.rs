//! A session file whose disk can fail.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bearer_auth::{
    BoxError,
    store::{BusyStore, FileStore, Locked, LockedSession, StoredSession, TokenStore},
};

use crate::faults::fault::Store;

/// A [`FileStore`] with injected faults.
#[derive(Clone)]
pub(crate) struct Disk {
    file: FileStore,
    path: PathBuf,
    fault: Arc<Mutex<Store>>,
    _directory: Arc<tempfile::TempDir>,
}

const SOUND: &str = r#"{"version":1,"refresh_token":"a-refresh-token"}"#;

impl Disk {
    /// Creates a store with a session that has no access token yet.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session");
        fs::write(&path, SOUND).unwrap();
        Self {
            file: FileStore::new(&path),
            path,
            fault: Arc::new(Mutex::new(Store::Sound)),
            _directory: Arc::new(directory),
        }
    }

    pub(crate) fn fail(&self, fault: Store) {
        if fault == Store::Corrupt {
            fs::write(&self.path, "not a session").unwrap();
        }
        *self.fault.lock().unwrap() = fault;
    }

    /// Ends the fault: the disk has space again, or the user has signed in again.
    pub(crate) fn recover(&self) {
        let fault = std::mem::replace(&mut *self.fault.lock().unwrap(), Store::Sound);
        if fault == Store::Corrupt && fs::read(&self.path).unwrap() == b"not a session" {
            fs::write(&self.path, SOUND).unwrap();
        }
    }

    fn fault(&self) -> Store {
        *self.fault.lock().unwrap()
    }
}

impl TokenStore for Disk {
    type Locked = LockedDisk;

    async fn lock(&self) -> Result<LockedDisk, BoxError> {
        match self.fault() {
            Store::ReadOnly => {
                return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into());
            }
            Store::Busy => return Err(BusyStore::new("another process").into()),
            _ => {}
        }
        Ok(LockedDisk {
            file: self.file.lock().await?,
            disk: self.clone(),
        })
    }
}

pub(crate) struct LockedDisk {
    file: Locked,
    disk: Disk,
}

impl LockedSession for LockedDisk {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        match self.disk.fault() {
            Store::Unreadable => Err(io::Error::other("an I/O error").into()),
            _ => self.file.load().await,
        }
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        match self.disk.fault() {
            Store::Full => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
            _ => self.file.save(session).await,
        }
    }
}
