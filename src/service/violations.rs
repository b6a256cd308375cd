//! Collects every violation of a request before it is answered.

use crate::domain::{Error, Violation};

/// The most violations that one error lists; it counts all of them.
/// They travel in one header, which has a bounded size ([`crate::rpc::status::MAX_BYTES`]).
pub const MAX_LISTED: usize = 16;

/// The violations found so far.
#[derive(Default)]
pub struct Violations {
    listed: Vec<Violation>,
    total: usize,
}

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.total += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Violation { field: field.into(), description: description.into() });
        }
    }

    /// What was parsed; `None` only after a violation was noted.
    pub fn check<T>(&mut self, field: &str, parsed: Result<T, impl Into<String>>) -> Option<T> {
        parsed.map_err(|description| self.add(field, description)).ok()
    }

    /// What was parsed; `None` for an empty text as well.
    pub fn optional<T, E: Into<String>>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.check(field, parse(text)) }
    }

    /// A message that has to be there; `None` only after a violation was noted.
    pub fn required<T>(&mut self, field: &str, message: Option<T>) -> Option<T> {
        self.check(field, message.ok_or("must be given"))
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub fn into_error(self) -> Error {
        debug_assert!(!self.is_empty(), "what could not be parsed was noted");
        Error::Invalid { listed: self.listed, total: self.total }
    }
}
