//! The standard `OTEL_*` variables, read as OpenTelemetry's specification asks for.
//!
//! An empty value counts as an unset one. A value that cannot be used is ignored with a
//! warning, because telemetry must not keep a service from starting.
//!
//! Source: OpenTelemetry, "Environment Variable Specification", "Configuration Types".

use std::{cell::RefCell, fmt::Display, ops::RangeInclusive};

/// The variables, and the warnings about them. The log does not exist yet when they are
/// read, so warnings wait here.
pub struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Variables<'a> {
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, warnings: RefCell::default() }
    }

    /// Every warning so far.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    /// The value, unless it is empty or not UTF-8.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// A Boolean: only `true` in any case is true.
    pub fn is_true(&self, name: &str) -> bool {
        self.one_of(&[name], &["true", "false"]) == Some("true")
    }

    /// The first of these variables that holds one of the `known` values, in any case.
    pub fn one_of(&self, names: &[&str], known: &[&'static str]) -> Option<&'static str> {
        names.iter().find_map(|name| {
            let value = self.text(name)?;
            let found = known.iter().find(|known| known.eq_ignore_ascii_case(value.trim()));
            if found.is_none() {
                self.ignored(name, &value, known.join(", "));
            }
            found.copied()
        })
    }

    /// The known ones of a comma-separated list; `None` where the variable is unset.
    pub fn list(&self, name: &str, known: &[&'static str]) -> Option<Vec<&'static str>> {
        let value = self.text(name)?;
        let mut found = Vec::new();
        for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match known.iter().find(|known| known.eq_ignore_ascii_case(part)) {
                Some(known) => found.push(*known),
                None => self.ignored(name, part, known.join(", ")),
            }
        }
        Some(found)
    }

    /// The first of these variables that holds a whole number within `range`.
    pub fn number(&self, names: &[&str], range: &RangeInclusive<u64>) -> Option<u64> {
        names.iter().find_map(|name| {
            let value = self.text(name)?;
            let number = value.trim().parse().ok().filter(|number| range.contains(number));
            if number.is_none() {
                self.ignored(
                    name,
                    &value,
                    format_args!("a number from {} to {}", range.start(), range.end()),
                );
            }
            number
        })
    }

    /// Warns that a value is ignored, and says what can be used.
    pub fn ignored(&self, name: &str, value: &str, expected: impl Display) {
        self.warn(format!("{name} is {value:?}, which is ignored; it can be: {expected}"));
    }

    /// Warns.
    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }
}

#[cfg(test)]
pub mod testing {
    use super::Variables;

    /// What `read` makes of these variables, and the warnings.
    pub fn read<T>(set: &[(&str, &str)], read: impl FnOnce(&Variables<'_>) -> T) -> (T, Vec<String>) {
        let lookup = |key: &str| set.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).into());
        let variables = Variables::new(&lookup);
        let made = read(&variables);
        (made, variables.into_warnings())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::read;

    #[test]
    fn only_true_is_true_and_other_words_earn_a_warning() {
        for (value, expected, warnings) in [
            ("true", true, 0),
            ("TRUE", true, 0),
            ("False", false, 0),
            ("", false, 0),
            ("1", false, 1),
            ("yes", false, 1),
        ] {
            let (is_true, said) = read(&[("A", value)], |variables| variables.is_true("A"));
            assert_eq!((is_true, said.len()), (expected, warnings), "{value:?}: {said:?}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_leaves_the_next_variable_in_force() {
        let set = [("A", "x"), ("B", "7")];
        let (number, said) = read(&set, |variables| variables.number(&["A", "B"], &(1..=9)));
        assert_eq!(number, Some(7));
        assert_eq!(said, ["A is \"x\", which is ignored; it can be: a number from 1 to 9"]);
        let (word, said) = read(&set, |variables| variables.one_of(&["EMPTY", "A"], &["X", "y"]));
        assert_eq!((word, said.len()), (Some("X"), 0));
    }

    #[test]
    fn a_list_keeps_what_is_known() {
        let (list, said) = read(&[("A", " one,two ,, ONE")], |variables| variables.list("A", &["one"]));
        assert_eq!((list, said.len()), (Some(vec!["one", "one"]), 1));
        assert_eq!(read(&[("A", "")], |variables| variables.list("A", &["one"])).0, None);
    }
}
