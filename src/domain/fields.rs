//! The fields of a user: what its caller sets.
//!
//! **Invariant:** code that must know every field takes a [`Fields`] or a [`Patch`] apart
//! by a pattern without `..`. So a new field compiles only after each of these places was
//! considered; docs/EXTEND.md lists them.

use std::fmt;

use super::Email;

/// Every field that a caller sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    pub name: Name,
    pub email: Email,
    pub age: Age,
}

/// The fields that an update sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    pub name: Option<Name>,
    pub email: Option<Email>,
    pub age: Option<Age>,
}

impl Fields {
    /// These fields, with the values that a patch sets.
    #[must_use]
    pub fn patched(&self, patch: &Patch) -> Self {
        let Patch { name, email, age } = patch.clone();
        Self {
            name: name.unwrap_or_else(|| self.name.clone()),
            email: email.unwrap_or_else(|| self.email.clone()),
            age: age.unwrap_or(self.age),
        }
    }

    /// These fields, with `other`'s values of those that the article's contract names.
    #[must_use]
    pub fn overwritten_by_article(&self, other: &Self) -> Self {
        let mut fields = self.clone();
        fields.name = other.name.clone();
        fields.email = other.email.clone();
        fields.age = other.age;
        fields
    }

    /// The texts, each one allocation, for limits on memory.
    pub fn texts(&self) -> [&str; 2] {
        let Self { name, email, age: Age(_) } = self;
        [name.as_str(), email.as_str()]
    }
}

#[cfg(test)]
impl Fields {
    /// Ada's, with this address.
    pub fn example(email: &str) -> Self {
        Self {
            name: Name::parse("Ada").unwrap(),
            email: Email::parse(email).unwrap(),
            age: Age::parse(36).unwrap(),
        }
    }
}

/// A full name: 1 to 256 characters after trimming, no control characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 256;

    /// Trims and checks a name.
    ///
    /// # Errors
    /// A text that says what a name looks like.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let name = name.trim();
        if name.is_empty() {
            return Err("must not be empty");
        }
        // No character is shorter than a byte, so a long text is never counted whole.
        if name.chars().take(Self::MAX_CHARS + 1).count() > Self::MAX_CHARS {
            return Err("must be at most 256 characters");
        }
        if name.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names are personal data: a stray `{:?}` in a log line must not show one.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(..)")
    }
}

/// An age in years, 0 to 150.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Age(u8);

impl Age {
    /// Checks an age.
    ///
    /// # Errors
    /// A text that says which ages there are.
    pub fn parse(age: i32) -> Result<Self, &'static str> {
        match u8::try_from(age) {
            Ok(age) if age <= 150 => Ok(Self(age)),
            _ => Err("must be 0 to 150"),
        }
    }

    pub fn years(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_bounded_and_printable() {
        assert_eq!(Name::parse("  Ada Lovelace\n").unwrap().as_str(), "Ada Lovelace");
        assert!(Name::parse(&"ü".repeat(256)).is_ok());
        for bad in ["", "   ", "a\u{0}b", "a\nb", &"ü".repeat(257)] {
            assert!(Name::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn ages_are_human() {
        for good in [0, 1, 150] {
            assert_eq!(i32::from(Age::parse(good).unwrap().years()), good);
        }
        for bad in [-1, 151, 256, i32::MIN, i32::MAX] {
            assert!(Age::parse(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn a_patch_sets_the_fields_that_it_names_and_no_other() {
        let before = Fields::example("ada@example.com");
        let new = Fields {
            name: Name::parse("Eve").unwrap(),
            email: Email::parse("eve@example.com").unwrap(),
            age: Age::parse(0).unwrap(),
        };
        assert_eq!(before.patched(&Patch::default()), before);
        let Fields { name, email, age } = new.clone();
        for (patch, after) in [
            (
                Patch { name: Some(name.clone()), ..Patch::default() },
                Fields { name: name.clone(), ..before.clone() },
            ),
            (
                Patch { email: Some(email.clone()), ..Patch::default() },
                Fields { email: email.clone(), ..before.clone() },
            ),
            (Patch { age: Some(age), ..Patch::default() }, Fields { age, ..before.clone() }),
            (Patch { name: Some(name), email: Some(email), age: Some(age) }, new),
        ] {
            assert_eq!(before.patched(&patch), after);
        }
    }

    #[test]
    fn debug_output_shows_no_name() {
        assert!(!format!("{:?}", Name::parse("Ada").unwrap()).contains("Ada"));
    }
}
