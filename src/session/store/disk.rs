//! The files of a session. All functions block.
//!
//! Functions that need the lock take [`Held`] as proof of it.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    lock::{Held, LockFile},
    private_file::{check_regular, failed, options, sync_directory},
};
use crate::error::BoxError;

/// The first bytes of sealed content, in all versions. No JSON document begins like this.
pub(super) const SEALED: &[u8; 8] = b"ba-seal\n";

/// A session has a few KiB: a larger file is not a session.
const MAX_BYTES: usize = 1 << 20;

/// The files of a [`FileStore`](super::FileStore).
#[derive(Clone)]
pub(super) struct Files {
    session: PathBuf,
    temporary: PathBuf,
    directory: PathBuf,
}

impl Files {
    /// Returns the files of `session`, and their lock file.
    pub(super) fn of(session: &Path) -> Result<(Self, LockFile), BoxError> {
        let (Some(name), Some(directory)) = (session.file_name(), session.parent()) else {
            return Err(failed(session, "not the path of a file", None));
        };
        let sibling = |suffix: &str| {
            let mut name = OsString::from(name);
            name.push(suffix);
            directory.join(name)
        };
        let files = Self {
            session: session.to_owned(),
            temporary: sibling(".tmp"),
            directory: directory.to_owned(),
        };
        let lock = LockFile::at(&sibling(".lock"))?;
        let lock = lock.with_leftover(files.temporary.clone());
        Ok((files, lock))
    }

    /// Returns the file's content; `None` if there is no file.
    pub(super) fn read(&self, _: &Held) -> Result<Option<Zeroizing<Vec<u8>>>, BoxError> {
        let content = self.read_file();
        content.map_err(|e| failed(&self.session, "cannot be read", Some(e)))
    }

    fn read_file(&self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let file = match options().read(true).open(&self.session) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        check_regular(&metadata)?;
        // Allocated in full: a vector that grows frees its old buffer without wiping it.
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let capacity = length.min(MAX_BYTES) + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
        if content.len() > MAX_BYTES {
            return Err(too_large());
        }
        Ok(Some(content))
    }

    /// Replaces the file's content.
    pub(super) fn write(&self, _: &Held, content: &[u8]) -> Result<(), BoxError> {
        let written = self.write_temporary(content).and_then(|()| {
            match fs::symlink_metadata(&self.session) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A rename would replace a symbolic link, and not its target.
                metadata => check_regular(&metadata?)?,
            }
            fs::rename(&self.temporary, &self.session)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&self.temporary);
            return Err(failed(&self.session, "cannot be written", Some(error)));
        }
        self.sync()
    }

    fn write_temporary(&self, content: &[u8]) -> io::Result<()> {
        if content.len() > MAX_BYTES {
            return Err(too_large());
        }
        let mut options = options();
        let mut file = options.write(true).create_new(true).open(&self.temporary)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Removes the file.
    pub(super) fn remove(&self, _: &Held) -> Result<(), BoxError> {
        match fs::remove_file(&self.session) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&self.session, "cannot be removed", Some(error))),
            Ok(()) => self.sync(),
        }
    }

    fn sync(&self) -> Result<(), BoxError> {
        let synced = sync_directory(&self.directory);
        synced.map_err(|e| failed(&self.directory, "cannot be synced", Some(e)))
    }

    /// Returns an error about the file's content.
    pub(super) fn error(&self, problem: &str) -> BoxError {
        failed(&self.session, problem, None)
    }
}

fn too_large() -> io::Error {
    let problem = "larger than 1 MiB: not a session";
    io::Error::new(ErrorKind::InvalidData, problem)
}
