//! The errors of a configuration, collected before any is reported.

use std::{borrow::Cow, error::Error, fmt};

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

/// A value as a message may repeat it: without the user and password of a URL,
/// and not longer than one cares to read.
pub fn quote(value: &str) -> String {
    const MAX_QUOTED_CHARS: usize = 100;
    let shown = match value.split_once("://") {
        Some((scheme, rest)) => {
            let login = if rest.contains('@') { "(hidden)@" } else { "" };
            let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
            Cow::Owned(match place.split_once('?') {
                Some((place, _)) => format!("{scheme}://{login}{place}?(hidden)"),
                None => format!("{scheme}://{login}{place}"),
            })
        }
        None => value.into(),
    };
    let mut quoted: String = shown.chars().take(MAX_QUOTED_CHARS).collect();
    if quoted.len() < shown.len() {
        quoted.push('…');
    }
    format!("{quoted:?}")
}
