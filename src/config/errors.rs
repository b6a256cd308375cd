//! The errors of a configuration, collected before any is reported.

use std::{error::Error, fmt};

use super::Source;

/// Every problem that was found.
#[derive(Debug, Default)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// Adds an error of one source.
    pub fn add(&mut self, source: &Source, what: impl fmt::Display) {
        self.0.push(format!("{source}: {what}"));
    }

    /// Adds an error between two settings.
    pub fn add_between(&mut self, what: String) {
        self.0.push(what);
    }

    /// `value`, unless there was a problem.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has an error:")?,
            many => writeln!(f, "the configuration has {many} errors:")?,
        }
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "`user-service --help` explains every setting")
    }
}

impl Error for ConfigErrors {}

/// The known name nearest to an unknown one, if any is similar.
pub fn nearest(unknown: &str, known: impl Iterator<Item = String>) -> Option<String> {
    const MIN_SIMILARITY: f64 = 0.6;
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(unknown, &name), name))
        .filter(|(likeness, _)| *likeness >= MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Stands in a message for a text that may hold a password.
pub const HIDDEN: &str = "(hidden)";

/// A text from outside, quoted for a message and shortened. [`HIDDEN`] where it may
/// hold a password.
pub fn quote(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    if may_hold_secret(text) {
        return HIDDEN.into();
    }
    let mut quoted: String = text.chars().take(MAX_CHARS).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    format!("{quoted:?}")
}

/// Whether this looks like a connection string, a login or a credential. A connection
/// string that its parser refused has no known place for the password, so no part of
/// it may be shown.
fn may_hold_secret(text: &str) -> bool {
    text.contains(['@', '=', '?']) || text.contains("//")
}
