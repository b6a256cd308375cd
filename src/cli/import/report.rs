//! What became of the lines: counts, a bar on a terminal, and a report of those
//! that were refused.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::source::{Item, SourceLine};
use crate::cli::{PIPE, output};

/// What stdin is read from.
const STDIN: &str = "/dev/stdin";

/// The counts so far.
pub struct ImportReport {
    created: u64,
    unchanged: u64,
    pub refused: u64,
    report: Option<BufWriter<File>>,
    /// Shows nothing where stderr is no terminal.
    bar: ProgressBar,
}

impl ImportReport {
    pub fn new(files: &[PathBuf], report: Option<&Path>) -> Result<Self, String> {
        let create = |path: &Path| {
            let stdin = |file: &PathBuf| if file == Path::new(PIPE) { STDIN.into() } else { file.clone() };
            if files.iter().map(stdin).any(|file| is_same_file(&file, path)) {
                return Err(format!("{} is imported: give the report another name", path.display()));
            }
            output::emptied(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let report = report.map(create).transpose()?.map(BufWriter::new);
        Ok(Self { created: 0, unchanged: 0, refused: 0, report, bar: bar(files) })
    }

    pub fn created(&mut self, item: &Item) {
        self.created += 1;
        self.advance(item);
    }

    pub fn unchanged(&mut self, item: &Item) {
        self.unchanged += 1;
        self.advance(item);
    }

    /// A line was refused; `why` says nothing of what it holds.
    pub fn refuse(&mut self, item: &Item, why: &str) -> Result<(), String> {
        self.refused += 1;
        self.advance(item);
        let SourceLine { file, line } = &item.place;
        let said = match &mut self.report {
            Some(report) => writeln!(report, "{file}:{line}: {why}"),
            None => self.bar.suspend(|| writeln!(io::stderr(), "{file}:{line}: {why}")),
        };
        said.map_err(|error| format!("cannot write the report: {error}"))
    }

    /// Takes the bar away, and writes the report out.
    pub fn finish(&mut self) -> Result<(), String> {
        self.bar.finish_and_clear();
        let written = self.report.as_mut().map_or(Ok(()), Write::flush);
        written.map_err(|error| format!("cannot write the report: {error}"))
    }

    fn advance(&self, item: &Item) {
        self.bar.inc(item.bytes);
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, unchanged, refused, .. } = self;
        write!(f, "{created} created, {unchanged} unchanged, {refused} refused")
    }
}

/// Whether two names are of one regular file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let id =
        |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|of| (of.dev(), of.ino()));
    id(a).is_some_and(|of_a| Some(of_a) == id(b))
}

/// The progress in the files; for stdin, whose length is unknown, the bytes done.
fn bar(files: &[PathBuf]) -> ProgressBar {
    let lengths =
        files.iter().map(|file| fs::metadata(file).ok().filter(fs::Metadata::is_file).map(|file| file.len()));
    let (bar, template) = match lengths.sum::<Option<u64>>() {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {percent}% {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
