//! Files that only their owner can read. All functions block.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::error::BoxError;

/// Returns options that create files with mode 0600, follow no symbolic link, and do not block on a
/// pipe.
pub(super) fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "mutated on Unix only")]
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
    let problem = "not a regular file (a symbolic link, a directory or a pipe)";
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
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

/// Creates a directory and its missing parents with mode 0700.
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

/// Syncs a directory: only then is a rename in it durable.
#[cfg(unix)]
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems cannot sync a directory.
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

/// Windows cannot sync a directory.
#[cfg(not(unix))]
pub(super) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// An error that names the file and shows none of its content.
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
        // The cause is part of the text, too: many programs log only that.
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
