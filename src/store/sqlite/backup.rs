//! Backups as files: made, checked, and put in a store's place.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use super::{columns::MIGRATIONS, connections, file, rows, schema};
use crate::store::{
    OpenError,
    backup::{BackupError, BackupSummary},
};

/// Copies a store that may be in use, as it is at one moment.
pub(in crate::store) fn backup(path: &Path, into: &Path) -> Result<BackupSummary, BackupError> {
    let path = file::absolute(path)?;
    let store = open(&path)?;
    let before = rows::current_revision(&store).map_err(|source| OpenError::sqlite(&path, source))?;
    copy(&store, into)?;
    let copied = check(into)?;
    if copied.revision < before {
        return Err(damaged(into, "it is older than the store was"));
    }
    Ok(copied)
}

/// Puts a backup in the place of a store that is not there, or empty, or to be replaced.
pub(in crate::store) fn restore(
    path: &Path,
    from: &Path,
    replace: bool,
) -> Result<BackupSummary, BackupError> {
    let path = file::absolute(path)?;
    let _lock = file::lock(&path)?;
    let [part, _] = restore_files(&path);
    if from.canonicalize().is_ok_and(|from| part.canonicalize().is_ok_and(|part| part == from)) {
        return Err(BackupError::IsRestored(from.into()));
    }
    let found = check(from)?;
    if path.exists() {
        match connections::open_writer(&path) {
            // Closing it moves its log into it.
            Ok(store) if replace || summary(&store).is_ok_and(|summary| summary.revision == 0) => {}
            Ok(_) => return Err(BackupError::NotEmpty(path.display().to_string())),
            // A damaged one is what backups are for.
            Err(OpenError::Sqlite { .. } | OpenError::Foreign(_)) if replace => {}
            Err(error) => return Err(error.into()),
        }
    }
    let placed = place(from, &part, &path, replace);
    if placed.is_err() {
        let _ = fs::remove_file(&part);
    }
    match placed? {
        placed if placed == found => Ok(placed),
        _ => Err(damaged(from, "it changed meanwhile")),
    }
}

fn place(from: &Path, part: &Path, path: &Path, replace: bool) -> Result<BackupSummary, BackupError> {
    let failed = |source| BackupError::File { path: part.into(), source };
    match fs::remove_file(part) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    let file = file::private(part).map_err(failed)?;
    copy(&open(from)?, part)?;
    let placed = check(part)?;
    file.sync_all().map_err(failed)?;
    if replace {
        keep(path)?;
    }
    // It would be read as the log of what comes now.
    if let Some(left) = files(path)[1..4].iter().find(|file| file.exists()) {
        return Err(BackupError::InUse { path: path.into(), left: left.clone() });
    }
    fs::rename(part, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(placed)
}

/// Gives the file that is replaced another name, next to its own until something takes its
/// place. A log is left of a damaged file only.
fn keep(path: &Path) -> Result<(), BackupError> {
    let [_, kept] = restore_files(path);
    let failed = |source| BackupError::File { path: kept.clone(), source };
    if let Some(older) = files(&kept).into_iter().take(4).find(|file| file.symlink_metadata().is_ok()) {
        return Err(BackupError::IsKept(older));
    }
    let missing_is_fine = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    for (old, new) in files(path).iter().zip(files(&kept)).take(4) {
        let moved = if old == path { fs::hard_link(old, &new) } else { fs::rename(old, &new) };
        missing_is_fine(moved).map_err(failed)?;
    }
    Ok(())
}

/// A new file with the schema of a store, for rows that are put there. A failure leaves
/// anything, and nothing is synced.
pub(in crate::store) fn create(into: &Path) -> Result<Connection, BackupError> {
    let failed = |source| BackupError::Copy { path: into.into(), source };
    let mut connection = connections::connect(into, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    connection.query_row("PRAGMA journal_mode = OFF", (), |_| Ok(())).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    schema::migrate(&mut connection, 0).map_err(failed)?;
    Ok(connection)
}

/// Opens a backup to read it with the newest schema: a temporary copy of it, where an
/// earlier release made it.
pub(in crate::store) fn open_up_to_date(path: &Path) -> Result<Connection, BackupError> {
    let backup = open(path)?;
    let version = schema::version(&backup, path)?;
    if version == MIGRATIONS.len() {
        return Ok(backup);
    }
    // A file without a name, which goes when it is closed.
    let copied = Connection::open("").and_then(|mut copy| {
        Backup::new(&backup, &mut copy)?.step(-1)?;
        schema::migrate(&mut copy, version)?;
        Ok(copy)
    });
    copied.map_err(|source| BackupError::Copy { path: path.into(), source })
}

/// Opens a store's file, or a backup, to read it.
fn open(path: &Path) -> Result<Connection, BackupError> {
    // SQLite's own words for a file that is not there would do for a damaged one.
    File::open(path).map_err(|source| BackupError::File { path: path.into(), source })?;
    let absolute = file::absolute(path)?;
    let connection = connections::connect(&absolute, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|source| OpenError::sqlite(path, source))?;
    match schema::version(&connection, path)? {
        0 => Err(OpenError::Foreign(path.into()).into()),
        _ => Ok(connection),
    }
}

/// Reads all of a backup, and says what it holds.
pub(in crate::store) fn check(path: &Path) -> Result<BackupSummary, BackupError> {
    let failed = |source: rusqlite::Error| damaged(path, &source.to_string());
    let connection = open(path).map_err(|error| match error {
        BackupError::Store(OpenError::Sqlite { source, .. }) => failed(source),
        other => other,
    })?;
    let said: String =
        connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(damaged(path, &said));
    }
    let summary = summary(&connection).map_err(failed)?;
    let logged: Option<i64> =
        connection.query_row("SELECT max(revision) FROM changes", (), |row| row.get(0)).map_err(failed)?;
    if logged.unwrap_or(0).cast_unsigned() != summary.revision {
        return Err(damaged(path, "its change log does not end with its last revision"));
    }
    Ok(summary)
}

/// The file of a store, and those that may lie next to it while it is open.
pub(in crate::store) fn files(path: &Path) -> [PathBuf; 5] {
    ["", "-wal", "-shm", "-journal", ".lock"].map(|suffix| file::beside(path, suffix))
}

/// What a restore writes next to a store: the file to come, and the one that was.
pub(in crate::store) fn restore_files(path: &Path) -> [PathBuf; 2] {
    [".part", ".replaced"].map(|suffix| file::beside(path, suffix))
}

fn copy(from: &Connection, into: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::Copy { path: into.into(), source };
    let path = file::absolute(into)?;
    let path = path.to_str().ok_or_else(|| failed(rusqlite::Error::InvalidPath(into.into())))?;
    from.execute("VACUUM INTO ?1", (path,)).map(drop).map_err(failed)
}

fn summary(connection: &Connection) -> rusqlite::Result<BackupSummary> {
    connection.query_row("SELECT revision, (SELECT count(*) FROM users) FROM meta", (), |row| {
        Ok(BackupSummary { revision: rows::revision(row, 0)?, users: row.get::<_, i64>(1)?.cast_unsigned() })
    })
}

fn damaged(path: &Path, why: &str) -> BackupError {
    BackupError::Damaged { path: path.into(), why: why.into() }
}
