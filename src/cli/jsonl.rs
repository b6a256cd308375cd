//! A user as a line of JSON, as `export` writes and `import` reads it.

use serde::{Deserialize, Serialize};

use crate::proto::user::v1::{ImportUsersRequest, User};

/// The longest line, in bytes: several times what the longest user takes, every
/// character escaped.
pub const MAX_LINE_BYTES: usize = 16 * 1_024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserLine {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    name: String,
    email: String,
    age: i32,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
}

/// What a user is on another store too: no etag and no update time.
pub fn write(user: User) -> serde_json::Result<String> {
    let create_time = user.create_time.map(|time| time.to_string());
    serde_json::to_string(&UserLine {
        id: user.id,
        name: user.name,
        email: user.email,
        age: user.age,
        create_time,
    })
}

/// Reads a line; the server checks what the fields hold.
///
/// # Errors
/// The reason, without any value of the line.
pub fn read(line: &[u8]) -> Result<ImportUsersRequest, String> {
    let line: UserLine = serde_json::from_slice(line).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                "a field is missing, unknown, there twice, or of the wrong type"
            }
            serde_json::error::Category::Eof => "the JSON is cut short",
            _ => "not JSON",
        };
        format!("{what}, at byte {}", error.column())
    })?;
    let create_time = line.create_time.map(|time| time.parse()).transpose();
    let create_time = create_time.map_err(|_| "create_time is not a time as in RFC 3339".to_owned())?;
    let user = User { name: line.name, email: line.email, age: line.age, create_time, ..User::default() };
    Ok(ImportUsersRequest { user: Some(user), user_id: line.id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_back_as_it_was_written() {
        let create_time = prost_types::Timestamp { seconds: -1, nanos: 999_999_000 };
        let user = User {
            id: "ada".into(),
            name: "Ada \"\u{1f980}\" Lovelace".into(),
            email: "ada@example.com".into(),
            age: 36,
            create_time: Some(create_time),
            ..User::default()
        };
        let line = write(user.clone()).unwrap();
        assert!(!line.contains('\n') && line.contains("1969-12-31T23:59:59.999999"), "{line}");
        let read = read(line.as_bytes()).unwrap();
        assert_eq!((read.user_id, read.user), ("ada".into(), Some(User { id: String::new(), ..user })));
    }

    #[test]
    fn what_is_wrong_is_said_without_what_the_line_holds() {
        for (bad, why) in [
            ("", "cut short"),
            ("{\"name\": \"ada@example.com\", \"ema", "cut short"),
            ("ada@example.com", "not JSON"),
            ("[]", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\"}", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\", \"age\": \"ada@example.com\"}", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\", \"age\": 36, \"ada@\": 1}", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"a\", \"age\": 36, \"create_time\": \"ada@\"}", "create_time"),
        ] {
            let said = read(bad.as_bytes()).unwrap_err();
            assert!(said.contains(why) && !said.contains("ada"), "{bad}: {said}");
        }
    }
}
