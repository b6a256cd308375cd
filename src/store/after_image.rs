//! A user in one column of the change log, as JSON: what a write left.
//!
//! One column, so that a purge erases every field, and no statement on the change log
//! lists fields. JSON, because a migration can make it by SQL, and operators can read it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::apply::event;
use crate::domain::{Age, Email, Entry, Fields, LogPosition, Name, Revision, Timestamp, User, UserId};

/// The user without its id and revision, which have separate columns.
///
/// A replica of the previous release reads what this one writes, and ignores new keys.
/// This one reads what the previous release wrote, so a new key has a default.
#[derive(Serialize, Deserialize)]
struct AfterImage<'a> {
    name: Cow<'a, str>,
    email: Cow<'a, str>,
    age: i32,
    /// Microseconds since 1970.
    create_time: i64,
    update_time: i64,
}

pub(super) fn encode(user: &User) -> String {
    let User { id: _, fields: Fields { name, email, age }, revision: _, create_time, update_time } = user;
    let image = AfterImage {
        name: name.as_str().into(),
        email: email.as_str().into(),
        age: age.years().into(),
        create_time: create_time.as_micros(),
        update_time: update_time.as_micros(),
    };
    serde_json::to_string(&image).expect("texts and numbers are always JSON")
}

/// The user that a write left, as the log has it.
///
/// # Errors
/// The rule that is broken, without any value.
pub(super) fn decode(image: &str, id: UserId, revision: Revision) -> Result<User, &'static str> {
    let image: AfterImage = serde_json::from_str(image).map_err(|_| "must be a user as JSON")?;
    let AfterImage { name, email, age, create_time, update_time } = image;
    let fields = Fields { name: Name::parse(&name)?, email: Email::parse(&email)?, age: Age::parse(age)? };
    Ok(User {
        id,
        fields,
        revision,
        create_time: Timestamp::from_micros(create_time),
        update_time: Timestamp::from_micros(update_time),
    })
}

/// A row of the change log.
pub(super) struct LogRow<'a> {
    pub position: LogPosition,
    pub kind: i32,
    pub id: &'a str,
    /// `None` where the write left no user, or where it was purged.
    pub after_image: Option<&'a str>,
}

impl LogRow<'_> {
    /// # Errors
    /// The rule that is broken, without any value.
    pub fn into_entry(self) -> Result<Entry, &'static str> {
        let id = UserId::parse(self.id)?;
        let user = self.after_image.map(|image| decode(image, id.clone(), self.position.revision));
        let event = event(self.kind, id, user.transpose()?).ok_or("must be a kind of change")?;
        Ok(Entry { position: self.position, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Event;

    #[test]
    fn a_user_comes_back_as_it_was_written() {
        let user = User {
            id: UserId::parse("ada").unwrap(),
            fields: Fields {
                name: Name::parse("Ada \"\u{1f980}\" Lovelace").unwrap(),
                ..Fields::example("ada@example.com")
            },
            revision: 7,
            create_time: Timestamp::from_micros(-1),
            update_time: Timestamp::from_micros(i64::MAX),
        };
        assert_eq!(decode(&encode(&user), user.id.clone(), 7), Ok(user));
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused_without_a_value() {
        let position = LogPosition { revision: 1, time: Timestamp::from_micros(1) };
        let entry = |kind, id, after_image| LogRow { position, kind, id, after_image }.into_entry();
        let image =
            r#"{"name":"Ada","email":"ada@example.com","age":36,"create_time":1,"update_time":1,"later":0}"#;
        assert!(matches!(entry(1, "ada", Some(image)).unwrap().event, Event::Created(_)));
        assert!(matches!(entry(3, "ada", None).unwrap().event, Event::Deleted(_)));
        for (kind, id, image) in [
            (1, "ada", None),
            (3, "ada", Some(image)),
            (4, "ada", Some(image)),
            (1, "ADA", Some(image)),
            (1, "ada", Some("{}")),
            (1, "ada", Some("ada@example.com")),
            (2, "ada", Some(&*image.replace("36", "151"))),
        ] {
            let why = entry(kind, id, image).unwrap_err();
            assert!(!why.contains("ada") && !why.contains("151"), "{why}");
        }
    }
}
