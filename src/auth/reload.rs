//! Texts that are read again when they change.
//!
//! Files are compared by content, so that a replaced file, a replaced folder of links
//! (Kubernetes' `..data`) and a file that is written in place are all noticed.

use std::{
    fmt::Debug,
    fs::File,
    mem,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use metrics::{Counter, Gauge, counter, gauge};

use super::AuthError;
use crate::util::{bounded_file, counter::at_zero};

/// How a value is read from a text.
type Parse<T> = fn(&str) -> Result<T, String>;

/// The metrics of one file.
#[derive(Debug)]
pub struct ReloadMetrics {
    loaded: Counter,
    refused: Counter,
    /// 1 while an older content of the file is in force.
    stale: Gauge,
}

impl ReloadMetrics {
    /// Of the file that this label names.
    pub fn new(file: &'static str) -> Self {
        let outcome = |outcome: &'static str| {
            at_zero(counter!("user_service_auth_reloads_total", "file" => file, "outcome" => outcome))
        };
        let stale = gauge!("user_service_auth_file_stale", "file" => file);
        stale.set(0.0);
        Self { loaded: outcome("loaded"), refused: outcome("refused"), stale }
    }
}

/// Where a text is that may change.
pub trait Source: Debug + Send {
    /// The text, or why there is none; `None` where it is too early to look again.
    fn look(&mut self) -> Option<Result<String, String>>;

    /// The path or the URL.
    fn name(&self) -> String;
}

/// A file.
#[derive(Debug)]
pub struct TextFile(PathBuf);

impl TextFile {
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }
}

impl Source for TextFile {
    fn look(&mut self) -> Option<Result<String, String>> {
        let file = File::open(&self.0).map_err(|error| format!("cannot be opened: {error}"));
        let read = |file| bounded_file::text(file).map_err(|error| format!("cannot be read: {error}"));
        Some(file.and_then(read))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

/// A text, and what it last said.
#[derive(Debug)]
pub struct Watched<T> {
    setting: &'static str,
    source: Box<dyn Source>,
    /// What was read and judged last, or why it could not be read.
    seen: Result<String, String>,
    /// Whether the last look found something new that cannot be used.
    suspected: bool,
    metrics: ReloadMetrics,
    parse: Parse<T>,
}

impl<T> Watched<T> {
    /// Reads the text for the first time.
    pub fn open(
        setting: &'static str,
        mut source: impl Source + 'static,
        metrics: ReloadMetrics,
        parse: Parse<T>,
    ) -> Result<(Self, T), AuthError> {
        let text = source.look().unwrap_or_else(|| Err("was not read".into()));
        let refused = |why| AuthError { setting, name: source.name(), why };
        let text = text.map_err(refused)?;
        let value = parse(&text).map_err(refused)?;
        let source = Box::new(source);
        Ok((Self { setting, source, seen: Ok(text), suspected: false, metrics, parse }, value))
    }

    /// Puts in force what the text says, where it says something new that can be used, and then
    /// tells of it. What cannot be used is logged and counted once, when a second look finds
    /// nothing better: a file may be half written.
    pub fn look(&mut self, put_in_force: impl FnOnce(T)) {
        let Some(text) = self.source.look() else { return };
        if text == self.seen {
            self.suspected = false;
            return;
        }
        let parsed = text.as_deref().map_err(Clone::clone).and_then(|text| self.parse(text));
        let was_suspected = mem::replace(&mut self.suspected, parsed.is_err());
        if parsed.is_err() && !was_suspected {
            return;
        }
        self.seen = text;
        match parsed {
            Ok(value) => {
                put_in_force(value);
                self.metrics.loaded.increment(1);
                self.metrics.stale.set(0.0);
                tracing::info!(setting = self.setting, "it has changed and is in force");
            }
            Err(why) => {
                self.metrics.refused.increment(1);
                self.metrics.stale.set(1.0);
                tracing::error!(
                    setting = self.setting,
                    why,
                    "it has changed and cannot be used: what was read before stays in force"
                );
            }
        }
    }

    /// A parser that panics refuses the text, because the looks have to go on.
    fn parse(&self, text: &str) -> Result<T, String> {
        let parse = self.parse;
        catch_unwind(|| parse(text)).unwrap_or_else(|_| Err("makes the parser panic".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        assert_ne!(text, "panic");
        text.parse().map_err(|_| "is no number".into())
    }

    fn changed(watched: &mut Watched<u32>) -> Option<u32> {
        let mut changed = None;
        watched.look(|number| changed = Some(number));
        changed
    }

    #[test]
    fn only_a_second_look_refuses_a_text_and_no_text_ends_the_looks() {
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("1");
        let source = TextFile::new(&file);
        let (mut watched, one) = Watched::open("test", source, ReloadMetrics::new("test"), number).unwrap();
        assert_eq!((one, changed(&mut watched)), (1, None));
        write("half");
        assert_eq!(changed(&mut watched), None);
        assert_eq!(watched.seen, Ok("1".into()), "it may be half written");
        write("2");
        assert_eq!(changed(&mut watched), Some(2));
        for bad in ["bad", "panic"] {
            write(bad);
            assert_eq!((changed(&mut watched), changed(&mut watched)), (None, None), "{bad}");
            assert_eq!(watched.seen, Ok(bad.into()), "it is refused");
            write("3");
            assert_eq!(changed(&mut watched), Some(3), "after {bad}");
        }
    }
}
