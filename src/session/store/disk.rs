//! The files of a session. Everything here blocks.
//!
//! What only the holder of the lock may do takes the [lock](Held) as proof.

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

/// How sealed content begins, in all versions. No JSON document begins like this.
pub(super) const SEALED: &[u8; 8] = b"ba-seal\n";

/// Sessions are a few KiB; anything larger is something else.
const MOST_BYTES: usize = 1 << 20;

/// The files of a [`FileStore`](super::FileStore).
#[derive(Clone)]
pub(super) struct Files {
    session: PathBuf,
    temporary: PathBuf,
    directory: PathBuf,
}

impl Files {
    /// And their lock.
    pub(super) fn of(session: &Path) -> Result<(Self, LockFile), BoxError> {
        let (Some(name), Some(directory)) = (session.file_name(), session.parent()) else {
            return Err(failed(session, "not the path of a file", None));
        };
        let beside = |suffix: &str| {
            let mut name = OsString::from(name);
            name.push(suffix);
            directory.join(name)
        };
        let files = Self {
            session: session.to_owned(),
            temporary: beside(".tmp"),
            directory: directory.to_owned(),
        };
        let lock = LockFile::at(&beside(".lock"))?;
        let lock = lock.with_leftover(files.temporary.clone());
        Ok((files, lock))
    }

    /// The session's content; `None` if there is no file.
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
        // As large as it has to be from the start: what a vector leaves when it grows is not wiped.
        let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        let room = length.min(MOST_BYTES) + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(room));
        file.take(MOST_BYTES as u64 + 1).read_to_end(&mut content)?;
        if content.len() > MOST_BYTES {
            return Err(too_large());
        }
        Ok(Some(content))
    }

    /// Replaces the session.
    pub(super) fn write(&self, _: &Held, content: &[u8]) -> Result<(), BoxError> {
        let written = self.write_temporary(content).and_then(|()| {
            match fs::symlink_metadata(&self.session) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A link to the session would be replaced, and not what it leads to.
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
        if content.len() > MOST_BYTES {
            return Err(too_large());
        }
        let mut options = options();
        let mut file = options.write(true).create_new(true).open(&self.temporary)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Forgets the session.
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

    /// Something is wrong with the session's content.
    pub(super) fn error(&self, problem: &str) -> BoxError {
        failed(&self.session, problem, None)
    }
}

fn too_large() -> io::Error {
    let problem = "it is larger than 1 MiB, and so not a session";
    io::Error::new(ErrorKind::InvalidData, problem)
}
