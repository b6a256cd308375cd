//! Audit lines on their way to their stream, and the count of those that it did not take.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tracing_appender::non_blocking::NonBlocking;

use super::log_writer::LogWriter;
use crate::config::AuditLog;

/// How many lines may wait: those of some seconds of writes.
const MAX_QUEUED_LINES: usize = 65_536;

/// The audit lines that are still to be written, and those that were lost.
#[derive(Clone, Debug)]
pub struct AuditWriter {
    pub lines: LogWriter,
    failed: Arc<AtomicUsize>,
}

/// Starts the thread that writes; `None` where no lines are written.
///
/// # Errors
/// The file cannot be opened.
pub fn start(log: &AuditLog) -> io::Result<Option<(NonBlocking, AuditWriter)>> {
    let stream: Box<dyn Write + Send> = match log {
        AuditLog::Off => return Ok(None),
        AuditLog::Stderr => Box::new(io::stderr()),
        AuditLog::File(path) => Box::new(open(path)?),
    };
    let failed = Arc::new(AtomicUsize::new(0));
    let stream = CountFailures { stream, failed: Arc::clone(&failed) };
    let (writer, lines) = LogWriter::start(stream, MAX_QUEUED_LINES, "audit");
    Ok(Some((writer, AuditWriter { lines, failed })))
}

/// A new file is for its owner and its group, such as a log shipper of that group, and for no
/// others, because subjects are often the addresses of people.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl AuditWriter {
    /// How many lines could not be written.
    pub fn failed(&self) -> usize {
        self.failed.load(Relaxed)
    }
}

/// Counts what its stream does not take, which the writer's thread passes over.
struct CountFailures {
    stream: Box<dyn Write + Send>,
    failed: Arc<AtomicUsize>,
}

impl Write for CountFailures {
    /// A line is one write. A part of one is followed by a line break, so that the next
    /// line can be read.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.stream.write_all(line) {
            self.failed.fetch_add(1, Relaxed);
            let _ = self.stream.write(b"\n");
            return Err(error);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn lines_that_a_full_disk_does_not_take_are_counted() {
        let (mut writer, audit) = start(&AuditLog::File("/dev/full".into())).unwrap().unwrap();
        writer.write_all(b"one\n").unwrap();
        writer.write_all(b"two\n").unwrap();
        audit.lines.flush().await;
        assert_eq!((audit.failed(), audit.lines.dropped()), (2, 0));
    }

    #[tokio::test]
    async fn lines_are_appended_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for line in ["one\n", "two\n"] {
            let (mut writer, audit) = start(&AuditLog::File(path.clone())).unwrap().unwrap();
            writer.write_all(line.as_bytes()).unwrap();
            audit.lines.flush().await;
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }

    #[tokio::test]
    async fn a_new_file_is_for_owner_and_group_alone_and_an_older_one_keeps_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let rights = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let log = AuditLog::File(path.clone());
        start(&log).unwrap();
        assert_eq!(rights() & !0o640, 0, "{:o}", rights());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        start(&log).unwrap();
        assert_eq!(rights(), 0o604);
    }
}
