//! Where a command writes people's data to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::runtime;
use uuid::Uuid;

use crate::signals::Signals;

/// The files of this process that are not whole yet.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A new file that only its owner may read, because it holds people's data. It is gone when this
/// is dropped, or a signal ends the process, unless it has another name by then.
pub struct PartFile(PathBuf);

impl PartFile {
    /// Makes one next to `path`, with a name that no other run uses.
    pub fn beside(path: &Path) -> io::Result<(Self, File)> {
        static SIGNALS: LazyLock<io::Result<()>> = LazyLock::new(remove_at_signal);
        if let Err(error) = &*SIGNALS {
            return Err(io::Error::other(error.to_string()));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:08x}.part", Uuid::new_v4().as_fields().0));
        let part = path.with_file_name(name);
        let mut unfinished = unfinished();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        unfinished.push(part.clone());
        Ok((Self(part), file))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        let mut unfinished = unfinished();
        unfinished.retain(|part| *part != self.0);
        remove(&self.0);
    }
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(part: &Path) {
    let mut journal = part.as_os_str().to_owned();
    journal.push("-journal");
    let _ = (fs::remove_file(part), fs::remove_file(journal));
}

/// Ends the process at SIGINT and SIGTERM as they would, once it leaves nothing behind.
fn remove_at_signal() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        // Its caller may be on another runtime.
        let _entered = runtime.enter();
        Signals::catch()?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        let signal = runtime.block_on(signals.next());
        let unfinished = unfinished();
        unfinished.iter().for_each(|part| remove(part));
        process::exit(signal.exit_code());
    })?;
    Ok(())
}

/// A file that takes its name when it is whole, or something else that is written to as
/// it is: a device, a pipe.
pub struct Output {
    file: File,
    /// `None` where the path names no regular file.
    rename: Option<Rename>,
}

/// The last step of a regular file.
struct Rename {
    part: PartFile,
    path: PathBuf,
}

impl Output {
    /// Opens what this path names.
    ///
    /// **Invariant:** only a regular file is ever replaced. A symbolic link is followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        if is_descriptor(path) {
            return Ok(Self { file: add_to(path)?, rename: None });
        }
        let path = match fs::metadata(path) {
            Ok(of) if of.is_file() => path.canonicalize()?,
            Ok(of) if of.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(of) if of.file_type().is_socket() => {
                return Err(io::Error::other("is a socket, which cannot be written to as a file"));
            }
            Ok(_) => return Ok(Self { file: OpenOptions::new().write(true).open(path)?, rename: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                return Err(io::Error::other("is a symbolic link to nothing: remove it, or make its target"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let (part, file) = PartFile::beside(&path)?;
        Ok(Self { file, rename: Some(Rename { part, path }) })
    }

    /// The file until then, where it is one that takes its name when it is whole.
    pub fn part(&self) -> Option<&Path> {
        self.rename.as_ref().map(|rename| rename.part.path())
    }

    /// Gives a regular file its name, once all of it is on the disk.
    pub fn finish(self) -> io::Result<()> {
        let Some(Rename { part, path }) = &self.rename else { return Ok(()) };
        self.file.sync_all()?;
        fs::rename(part.path(), path)?;
        // The file is in place. Some file systems cannot sync a directory.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let _ = File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a file that is written to as it is. One that is there is emptied.
pub fn emptied(path: &Path) -> io::Result<File> {
    if is_descriptor(path) { add_to(path) } else { File::create(path) }
}

/// Opens what a descriptor is of. It belongs to the caller, so its contents stay.
fn add_to(descriptor: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(descriptor)
}

/// Whether this names an open descriptor, such as stdout or the shell's `>(command)`.
fn is_descriptor(path: &Path) -> bool {
    let folders = ["/dev/fd", "/proc/self/fd"];
    let names = ["/dev/stdout", "/dev/stderr"];
    folders.iter().any(|folder| path.starts_with(folder)) || names.iter().any(|name| path == Path::new(name))
}
