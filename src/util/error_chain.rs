//! An error and its sources in one line.

use std::{error::Error, fmt};

/// Displays an error and each of its sources. A source that the text before it ends with
/// already is left out, because some errors repeat their source.
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn every_source_is_shown_once() {
        let link = |text, source| Link { text, source };
        let root = link("disk is full", None);
        let middle = link("cannot write: disk is full", Some(Box::new(root)));
        let error = link("the commit failed", Some(Box::new(middle)));
        assert_eq!(ErrorChain(&error).to_string(), "the commit failed: cannot write: disk is full");
    }
}
