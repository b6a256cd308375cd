//! Texts that are read again when they change.
//!
//! Files are compared by content, so that a replaced file, a replaced folder of links
//! (Kubernetes' `..data`) and a file that is written in place are all noticed.

use std::{
    fmt::Debug,
    fs::File,
    path::{Path, PathBuf},
};

use metrics::{Counter, Gauge, counter, gauge};

use super::AuthError;
use crate::util::bounded_file;

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
            let counter = counter!("user_service_auth_reloads_total", "file" => file, "outcome" => outcome);
            counter.increment(0);
            counter
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
    /// What was read last, or why it could not be.
    seen: Result<String, String>,
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
        Ok((Self { setting, source: Box::new(source), seen: Ok(text), metrics, parse }, value))
    }

    /// What the text says, where it says something new that can be used. What cannot be is
    /// logged and counted once.
    pub fn changed(&mut self) -> Option<T> {
        let text = self.source.look()?;
        if text == self.seen {
            return None;
        }
        let parsed = text.as_deref().map_err(Clone::clone).and_then(self.parse);
        self.seen = text;
        match parsed {
            Ok(value) => {
                self.metrics.loaded.increment(1);
                self.metrics.stale.set(0.0);
                tracing::info!(setting = self.setting, "it has changed and is in force");
                Some(value)
            }
            Err(why) => {
                self.metrics.refused.increment(1);
                self.metrics.stale.set(1.0);
                tracing::error!(
                    setting = self.setting,
                    why,
                    "it has changed and cannot be used: what was read before stays in force"
                );
                None
            }
        }
    }
}
