//! A user and what the service assigns to it. The types have private fields: a value
//! that exists is a good one.

use std::{
    hash::{Hash, Hasher},
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

use super::Fields;

/// A user as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub fields: Fields,
    /// The revision of the write that left the user so.
    pub revision: Revision,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
}

impl User {
    /// The version that callers send back to detect a write in between.
    pub fn etag(&self) -> Etag {
        let mut rest = Mixed(self.update_time.as_micros().cast_unsigned());
        self.fields.hash(&mut rest);
        Etag(mixed(self.revision ^ rest.finish()))
    }
}

/// A user's id: 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Box<str>);

impl UserId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 63;

    /// Checks an id that came from outside.
    ///
    /// # Errors
    /// A text that says what an id looks like.
    pub fn parse(id: &str) -> Result<Self, &'static str> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=Self::MAX_BYTES).contains(&id.len()) && id.bytes().all(allowed) {
            Ok(Self(id.into()))
        } else {
            Err("must be 1 to 63 characters of a-z, 0-9 and '-'")
        }
    }

    /// A new id: a `UUIDv7` (RFC 9562), so that ids made close in time stand close
    /// in the store.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of a write: one counter a store, in commit order, from 1.
pub type Revision = u64;

/// The version of a user, quoted as AIP-154 asks: made of its revision, of the time of its last
/// write and of its fields. A revision alone is of two versions where a store was restored, and
/// where a write was only validated; and a clock may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag(u64);

/// A number with all of its bits spread over all others, one for one: the last step of `SplitMix64`.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A hash that is the same on each replica, which that of the standard library is not.
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mixed(self.0 ^ u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        mixed(self.0)
    }
}

impl Etag {
    /// Reads an etag that a caller sent back.
    ///
    /// # Errors
    /// A text that says where etags come from.
    pub fn parse(etag: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be an etag as this service returned it, quotes included";
        let hex = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(EXPECTED)?;
        let version = u64::from_str_radix(hex, 16).map_err(|_| EXPECTED)?;
        // One spelling only: no sign, no leading zero, no capitals.
        let parsed = Self(version);
        if String::from(parsed) == etag { Ok(parsed) } else { Err(EXPECTED) }
    }
}

/// Digit by digit: every answer has one, and the formatter takes 2% of a call for it.
impl From<Etag> for String {
    fn from(Etag(version): Etag) -> Self {
        let digits = (u64::BITS - version.leading_zeros()).div_ceil(4).max(1);
        let mut etag = Self::with_capacity(digits as usize + 2);
        etag.push('"');
        for digit in (0..digits).rev() {
            let digit = (version >> (4 * digit)) & 0xf;
            etag.push(char::from(b"0123456789abcdef"[digit as usize]));
        }
        etag.push('"');
        etag
    }
}

/// A point in time: microseconds since 1970 in UTC, which is what every store
/// can keep without rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The seconds of what protobuf takes for a time: the years 1 to 9999.
    pub const PROTOBUF_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// The time so long before this one.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "-", "user-1", &longest] {
            assert_eq!(UserId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a b", "ü", "a/b", &"a".repeat(64)] {
            assert!(UserId::parse(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(UserId::parse(UserId::generate().as_str()).is_ok());
    }

    #[test]
    fn an_etag_is_of_one_revision_one_time_and_the_same_fields() {
        let etag = |revision, micros, email: &str| {
            let time = Timestamp::from_micros(micros);
            let (id, fields) = (UserId::parse("a").unwrap(), Fields::example(email));
            User { id, fields, revision, create_time: Timestamp::from_micros(0), update_time: time }.etag()
        };
        // What a release or a replica answers, another one takes.
        assert_eq!(String::from(etag(1, 1_732_334_647_859_844, "ada@example.com")), "\"99ec536b74b4ec1e\"");
        let (numbers, addresses) = (0..30, ["ada@example.com", "eda@example.com", "ada@example.con"]);
        let all = numbers.clone().flat_map(|a| numbers.clone().map(move |b| (a, i64::try_from(b).unwrap())));
        let near: Vec<_> = all.flat_map(|(a, b)| addresses.map(|address| etag(a, b, address).0)).collect();
        assert_eq!(near.iter().collect::<std::collections::HashSet<_>>().len(), 30 * 30 * 3);
    }

    #[test]
    fn an_etag_has_one_spelling() {
        for version in [1, 0xabc, u64::MAX] {
            let etag = Etag(version);
            assert_eq!(Etag::parse(&String::from(etag)), Ok(etag));
        }
        for bad in ["", "1", "\"\"", "\"01\"", "\"+1\"", "\"A\"", "\"xyz\"", "\"1\" ", "W/\"1\""] {
            assert!(Etag::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
