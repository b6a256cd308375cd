//! `backup` and `restore`: a whole store as one file, and back.

use std::{
    env,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    FAILURE, PIPE,
    output::{Output, PartFile},
};
use crate::{
    config::{Config, StoreUrl},
    store::{self, BackupSummary},
};

/// What an `SQLite` file begins with.
const HEADER: &[u8] = b"SQLite format 3\0";

/// From which store to which file.
#[derive(Debug)]
pub struct Backup {
    pub config: Config,
    /// `-`: stdout.
    pub to: PathBuf,
}

/// From which file to which store.
#[derive(Debug)]
pub struct Restore {
    pub config: Config,
    /// `-`: stdin.
    pub from: PathBuf,
    /// Whether a store with users is replaced.
    pub replace: bool,
}

impl Backup {
    pub fn run(&self) -> ExitCode {
        exit_code("backup", self.make())
    }

    fn make(&self) -> Result<BackupSummary, String> {
        if self.to == Path::new(PIPE) {
            let (file, _) = scratch(&self.config)?;
            let summary = store::backup(&self.config, file.path()).map_err(message)?;
            File::open(file.path())
                .and_then(|mut made| io::copy(&mut made, &mut io::stdout()))
                .map_err(|error| format!("cannot write: {error}"))?;
            return Ok(summary);
        }
        store::may_be_replaced(&self.config, &self.to).map_err(message)?;
        let failed = |error: io::Error| format!("{}: {error}", self.to.display());
        if !may_be_backup(&self.to).map_err(failed)? {
            let path = self.to.display();
            return Err(format!("{path} holds something else: name a new file, or an older backup"));
        }
        let output = Output::open(&self.to).map_err(failed)?;
        let part = output.part().ok_or_else(|| failed(io::Error::other("is a special file")))?;
        let summary = store::backup(&self.config, part).map_err(message)?;
        output.finish().map_err(failed)?;
        Ok(summary)
    }
}

impl Restore {
    pub fn run(&self) -> ExitCode {
        exit_code("restore", self.restore())
    }

    fn restore(&self) -> Result<BackupSummary, String> {
        if self.from == Path::new(PIPE) {
            let (file, mut opened) = scratch(&self.config)?;
            io::copy(&mut io::stdin(), &mut opened).map_err(|error| format!("cannot read: {error}"))?;
            return store::restore(&self.config, file.path(), self.replace).map_err(|error| match error {
                // Of what it holds; the name says nothing to its caller.
                store::BackupError::Damaged { why, .. } => {
                    message(store::BackupError::Damaged { path: "stdin".into(), why })
                }
                store::BackupError::Store(store::OpenError::Foreign(path)) if path == file.path() => {
                    message(store::BackupError::Store(store::OpenError::Foreign("stdin".into())))
                }
                other => message(other),
            });
        }
        store::restore(&self.config, &self.from, self.replace).map_err(message)
    }
}

/// Whether this may be an older backup: a typing error must not cost another file.
fn may_be_backup(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        opened => opened?,
    };
    let mut begin = Vec::new();
    file.take(HEADER.len() as u64).read_to_end(&mut begin)?;
    Ok(begin.is_empty() || begin == HEADER)
}

/// A file for a backup, on the disk of the store where it has one: a backup may be too large for
/// others.
fn scratch(config: &Config) -> Result<(PartFile, File), String> {
    let directory = match &config.store_url {
        StoreUrl::Sqlite(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        StoreUrl::Memory | StoreUrl::Postgres(_) => env::temp_dir(),
    };
    let path = directory.join("user-service-backup");
    PartFile::beside(&path).map_err(|error| format!("{}: {error}", directory.display()))
}

fn exit_code(command: &str, done: Result<BackupSummary, String>) -> ExitCode {
    match done {
        Ok(BackupSummary { users, revision }) => {
            eprintln!("{command}: {users} users, revision {revision}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{command}: {why}");
            ExitCode::from(FAILURE)
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err takes")]
fn message(error: store::BackupError) -> String {
    error.to_string()
}
