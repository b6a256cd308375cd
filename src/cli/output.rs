//! Where a command writes people's data to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A file that takes its name when it is whole, or something else that is written to as
/// it is: a device, a pipe.
pub struct Output {
    file: File,
    /// `None` where the path names no regular file.
    rename: Option<Rename>,
}

/// The last step of a regular file.
struct Rename {
    part: PathBuf,
    path: PathBuf,
}

impl Output {
    /// Opens what this path names.
    ///
    /// **Invariant:** only a regular file is ever replaced. A symbolic link is followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        if is_descriptor(path) {
            // The descriptor belongs to the caller, so its contents stay.
            return Ok(Self { file: OpenOptions::new().append(true).open(path)?, rename: None });
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
        let part = part_of(&path);
        Ok(Self { file: private(&part)?, rename: Some(Rename { part, path }) })
    }

    /// The file until then, where it is one that takes its name when it is whole.
    pub fn part(&self) -> Option<&Path> {
        self.rename.as_ref().map(|rename| rename.part.as_path())
    }

    /// Gives a regular file its name, once all of it is on the disk.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(Rename { part, path }) = &self.rename else { return Ok(()) };
        self.file.sync_all()?;
        fs::rename(part, path)?;
        // The file is in place. Some file systems cannot sync a directory.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let _ = File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        self.rename = None;
        Ok(())
    }
}

/// Leaves no file that is not whole.
impl Drop for Output {
    fn drop(&mut self) {
        if let Some(Rename { part, .. }) = &self.rename {
            let _ = fs::remove_file(part);
        }
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

/// Whether this names an open descriptor, such as stdout or the shell's `>(command)`.
fn is_descriptor(path: &Path) -> bool {
    let folders = ["/dev/fd", "/proc/self/fd"];
    let names = ["/dev/stdout", "/dev/stderr"];
    folders.iter().any(|folder| path.starts_with(folder)) || names.iter().any(|name| path == Path::new(name))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// A new file that only its owner may read, because it holds people's addresses.
pub fn private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
