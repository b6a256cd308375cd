//! Files that are read again when they change.
//!
//! They are compared by content, so that a replaced file, a replaced folder of links
//! (Kubernetes' `..data`) and a file that is written in place are all noticed.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use metrics::{Counter, Gauge, counter, gauge};

use super::{AuthError, file_error};
use crate::util::bounded_file;

/// How a value is read from a file's text.
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

/// A file, and what it last said.
#[derive(Debug)]
pub struct Watched<T> {
    setting: &'static str,
    path: PathBuf,
    /// What was read last, or why it could not be.
    seen: Result<String, String>,
    metrics: ReloadMetrics,
    parse: Parse<T>,
}

impl<T> Watched<T> {
    /// Reads the file for the first time.
    pub fn open(
        setting: &'static str,
        path: &Path,
        metrics: ReloadMetrics,
        parse: Parse<T>,
    ) -> Result<(Self, T), AuthError> {
        let refused = |why| file_error(setting, path, why);
        let text = read(path).map_err(refused)?;
        let value = parse(&text).map_err(refused)?;
        Ok((Self { setting, path: path.into(), seen: Ok(text), metrics, parse }, value))
    }

    /// What the file says, where it says something new that can be used. What cannot be is
    /// logged and counted once.
    pub fn changed(&mut self) -> Option<T> {
        let text = read(&self.path);
        if text == self.seen {
            return None;
        }
        let parsed = text.as_deref().map_err(Clone::clone).and_then(self.parse);
        self.seen = text;
        match parsed {
            Ok(value) => {
                self.metrics.loaded.increment(1);
                self.metrics.stale.set(0.0);
                tracing::info!(setting = self.setting, "the file has changed and is in force");
                Some(value)
            }
            Err(why) => {
                self.metrics.refused.increment(1);
                self.metrics.stale.set(1.0);
                tracing::error!(
                    setting = self.setting,
                    why,
                    "the file has changed and cannot be used: what was read before stays in force"
                );
                None
            }
        }
    }
}

/// A file's text.
fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    bounded_file::text(file).map_err(|error| format!("cannot be read: {error}"))
}
