//! Files of the user's own. Everything here blocks.
//!
//! What may only be done under the lock takes what [holds](Held) it as proof.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::lock::{Held, LockFile};
use crate::error::BoxError;

/// Sessions are a few KiB; whatever is larger is something else.
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

/// Files are the owner's alone. Neither is a link followed nor a pipe waited for.
pub(super) fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "elsewhere than on Unix")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

pub(super) fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let problem = "it is a link, a directory or the like, and not a file";
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}

fn too_large() -> io::Error {
    let problem = "it is larger than 1 MiB, and so not a session";
    io::Error::new(ErrorKind::InvalidData, problem)
}

#[cfg(unix)]
pub(super) fn narrow(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
pub(super) fn narrow(_: &File) -> io::Result<()> {
    Ok(())
}

/// With all that are missing above it, as the owner's alone.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|above| !above.exists());
    let missing: Vec<_> = missing.collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(directory)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        sync_directory(parent)?;
    }
    Ok(())
}

/// A rename is on the disk when its directory is.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems know no such thing.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Windows has no such thing.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// An error that names the file, and shows nothing of its content.
#[derive(Debug)]
struct FileError {
    path: PathBuf,
    problem: String,
    cause: Option<io::Error>,
}

pub(super) fn failed(
    path: &Path,
    problem: impl Into<String>,
    cause: Option<io::Error>,
) -> BoxError {
    Box::new(FileError {
        path: path.to_owned(),
        problem: problem.into(),
        cause,
    })
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)?;
        // Said here, too: many print one line only.
        self.cause
            .iter()
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
