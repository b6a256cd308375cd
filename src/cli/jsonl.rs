//! A user as a line of JSON, as `export` writes and `import` reads it.

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    domain,
    proto::user::v1::{ImportUsersRequest, User},
};

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

/// The fields that every line has, also where they are empty.
const REQUIRED: [&str; 3] = ["name", "email", "age"];

/// What a user is on another store too: no etag and no update time.
pub fn write(user: User) -> serde_json::Result<String> {
    let User { id, name, email, age, create_time, etag: _, update_time: _ } = user;
    let create_time = create_time.map(|time| time.to_string());
    serde_json::to_string(&UserLine { id, name, email, age, create_time })
}

/// Reads a line; the server checks what the fields hold.
///
/// # Errors
/// The reason, without any value of the line.
pub fn read(line: &[u8]) -> Result<ImportUsersRequest, String> {
    let line: UserLine = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let missing = REQUIRED.iter().find(|field| text.starts_with(&format!("missing field `{field}`")));
        let what = match (error.classify(), missing) {
            (_, Some(field)) => return format!("{field} is missing"),
            (serde_json::error::Category::Data, _) => "a field is unknown, there twice, or of the wrong type",
            (serde_json::error::Category::Eof, _) => "the JSON is cut short",
            _ => "not JSON",
        };
        format!("{what}, at byte {}", error.column())
    })?;
    let UserLine { id, name, email, age, create_time } = line;
    let create_time = create_time.map(|time| timestamp(&time).ok_or(TIME_EXPECTED)).transpose()?;
    let user = User { name, email, age, create_time, ..User::default() };
    Ok(ImportUsersRequest { user: Some(user), user_id: id })
}

const TIME_EXPECTED: &str = "create_time must be a time of the years 1 to 9999 with its offset, as in \
                             RFC 3339: 2020-01-01T01:00:00Z or 2020-01-01T01:00:00+02:00";

/// Reads a `date-time` of RFC 3339, section 5.6; a space may stand in place of the `T`.
/// prost's parser takes other forms as well, and takes a time without an offset for UTC.
fn timestamp(text: &str) -> Option<Timestamp> {
    const LOCAL: &str = "0000-00-00T00:00:00";
    const OFFSET: &str = "+00:00";
    let (local, rest) = text.split_at_checked(LOCAL.len())?;
    let fraction = rest.strip_prefix('.').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let offset = fraction.unwrap_or(rest);
    let is_whole = has_form(local, LOCAL) && (matches!(offset, "Z" | "z") || has_form(offset, OFFSET));
    let time: Timestamp = text.parse().ok().filter(|_| is_whole)?;
    // An offset can move it out of the years that can be written.
    domain::Timestamp::PROTOBUF_SECONDS.contains(&time.seconds).then_some(time)
}

/// Whether a text has digits and signs where `form` has them.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form)| match form {
        b'0' => u8::is_ascii_digit(&byte),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        b'+' => matches!(byte, b'+' | b'-'),
        sign => byte == sign,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
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
            etag: String::new(),
            update_time: None,
        };
        let line = write(user.clone()).unwrap();
        assert!(!line.contains('\n') && line.contains("1969-12-31T23:59:59.999999"), "{line}");
        let read = read(line.as_bytes()).unwrap();
        assert_eq!((read.user_id, read.user), ("ada".into(), Some(User { id: String::new(), ..user })));
    }

    #[test]
    fn a_time_has_an_offset() {
        let seconds = |text: &str| timestamp(text).map(|time| time.seconds);
        for (text, utc) in [
            ("2020-01-01T01:00:00Z", 1_577_840_400),
            ("2020-01-01t01:00:00.123456789z", 1_577_840_400),
            ("2020-01-01 01:00:00+02:00", 1_577_833_200),
            ("2020-01-01T01:00:00.5-00:30", 1_577_842_200),
            ("0000-12-31T23:59:00-00:01", -62_135_596_800),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(text), Some(utc), "{text}");
        }
        for bad in [
            "",
            "2020-01-01",
            "2020-01-01T01:00:00",
            "2020-01-01T01:00:00.5",
            "2020-01-01T01:00Z",
            "2020-01-01T01:00:00 Z",
            "2020-01-01T01:00:00+02",
            "2020-01-01T01:00:00+0200",
            "2020-01-01T01:00:00+25:00",
            "2020-01-01T01:00:00.Z",
            "2020-02-30T01:00:00Z",
            "2020-01-01T25:00:00Z",
            "+12020-01-01T01:00:00Z",
            "2020-01-01T01:00:00\u{ff3a}",
            "1577840400",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_what_the_line_holds() {
        for (bad, why) in [
            ("", "cut short"),
            ("{\"name\": \"ada@example.com\", \"ema", "cut short"),
            ("ada@example.com", "not JSON"),
            ("[]", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\"}", "age is missing"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\", \"age\": \"ada@example.com\"}", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"ada@example.com\", \"age\": 36, \"ada@\": 1}", "a field"),
            ("{\"name\": \"Ada\", \"email\": \"a\", \"age\": 36, \"create_time\": \"ada@\"}", "create_time"),
        ] {
            let said = read(bad.as_bytes()).unwrap_err();
            assert!(said.contains(why) && !said.contains("ada"), "{bad}: {said}");
        }
    }
}
