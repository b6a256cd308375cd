//! The store's file: its path, its access rights, and the lock that keeps other services
//! out.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::store::OpenError;

/// How long a file that is in use is tried for, and how often: a process that ends, or one
/// that is just started by the last user, lets go of the lock a moment later.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// The absolute path of a file, so that no name is read as a `file:` URI, and a change of
/// the working directory changes nothing. Behind symbolic links, because the log and the lock
/// lie next to the file itself: two names of one file would have a lock each.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if path.is_dir() {
        return Err(OpenError::Directory(path.into()));
    }
    let resolved = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            std::path::absolute(path)
        }
        resolved => resolved,
    };
    let failed = |source| OpenError::File { path: path.into(), source };
    let resolved = resolved.map_err(failed)?;
    let is_file = resolved.metadata().map_or(true, |found| found.is_file());
    if is_file { Ok(resolved) } else { Err(OpenError::NotAFile(path.into())) }
}

/// The files that a store was opened with, by which one notices that others have their names.
pub(super) struct OpenFiles([(Option<FileId>, PathBuf); 2]);

/// What tells files of one machine apart: device and inode.
type FileId = (u64, u64);

impl OpenFiles {
    /// The store's file and its log, both there.
    pub fn of(path: &Path) -> Self {
        let files = [path.to_path_buf(), beside(path, "-wal")];
        Self(files.map(|file| (file_id(&file).ok(), file)))
    }

    /// Whether the names are still those of the files. Where that cannot be known, the next
    /// write may tell more.
    pub fn are_in_place(&self) -> bool {
        self.0.iter().all(|(opened, path)| match file_id(path) {
            Ok(found) => opened.is_none_or(|opened| opened == found),
            Err(error) => opened.is_none() || error.kind() != io::ErrorKind::NotFound,
        })
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    path.metadata().map(|found| (found.dev(), found.ino()))
}

/// Makes this process the only one on the file, for as long as the result lives.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    if path.metadata().is_ok_and(|found| found.nlink() > 1) {
        return Err(OpenError::ManyNames(path.into()));
    }
    let lock_path = beside(path, ".lock");
    let lock = private(&lock_path).map_err(|source| OpenError::File { path: lock_path.clone(), source })?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.into())),
            Err(TryLockError::Error(source)) => return Err(OpenError::File { path: lock_path, source }),
        }
    }
}

/// Opens or makes a file with access for its owner only, because it holds personal data.
pub(super) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes away all other users' rights to a file: one that was copied or restored has those that
/// files have by default.
pub(super) fn take_from_others(path: &Path) -> io::Result<()> {
    let mode = path.metadata()?.permissions().mode();
    let others = mode & 0o007;
    if others == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode - others)) {
        Ok(()) => tracing::warn!("everybody could read the store's file; only its owner and group may now"),
        Err(error) => tracing::warn!(%error, "everybody may read the store's file: chmod o= it"),
    }
    Ok(())
}

/// The name of a file that belongs to the store's.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
