//! Where a watch goes on.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{LogPosition, StoreId, Timestamp, UserId};

/// Where a watch goes on: behind the message that it came with. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    pub store: StoreId,
    pub at: Progress,
    /// The newest position of which anything that was told may be: a page of users was read
    /// after the watch began, so users may be missing that were deleted or changed since. In a
    /// history without this position, no change would tell of them.
    pub seen: LogPosition,
}

/// How far a watch has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// In the initial state as of `began`, behind this user, if behind any.
    Scan { began: LogPosition, last: Option<UserId> },
    /// In the change log, behind this entry.
    Changes { after: LogPosition },
}

impl Progress {
    /// The point that changes are still to be told from.
    pub fn log_position(&self) -> LogPosition {
        match *self {
            Self::Scan { began, .. } => began,
            Self::Changes { after } => after,
        }
    }
}

/// What a token begins with, so that a later form can be told apart.
const TOKEN_VERSION: u8 = 1;
/// What follows: version, kind, store id, revision and time.
const HEAD_BYTES: usize = 1 + 1 + 16 + POSITION_BYTES;
const POSITION_BYTES: usize = 8 + 8;
/// The bit of the kind that is set where the newest position that was seen follows.
const WITH_SEEN: u8 = 2;
/// Bytes of the hash at the end. They keep mistakes out, not forgers: a made-up
/// token shows nothing that its maker may not see anyway.
const CHECK_BYTES: usize = 4;

impl ResumeToken {
    /// Reads a token that a caller sent back.
    ///
    /// # Errors
    /// A text that says where tokens come from.
    pub fn parse(token: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be a resume_token as this service returned it";
        if token.len() > (HEAD_BYTES + POSITION_BYTES + UserId::MAX_BYTES + CHECK_BYTES).div_ceil(3) * 4 {
            return Err(EXPECTED);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| EXPECTED)?;
        read(&bytes).ok_or(EXPECTED)
    }

    pub fn encode(&self) -> String {
        let (kind, log_position, last) = match &self.at {
            Progress::Changes { after } => (0, after, None),
            Progress::Scan { began, last } => (1, began, last.as_ref()),
        };
        let seen = (self.seen != *log_position).then_some(self.seen);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + POSITION_BYTES + UserId::MAX_BYTES + CHECK_BYTES);
        bytes.extend([TOKEN_VERSION, kind | seen.map_or(0, |_| WITH_SEEN)]);
        bytes.extend(self.store.0);
        for position in [*log_position].into_iter().chain(seen) {
            bytes.extend(position.revision.to_be_bytes());
            bytes.extend(position.time.as_micros().to_be_bytes());
        }
        bytes.extend(last.map_or("", UserId::as_str).as_bytes());
        let check = check(&bytes);
        bytes.extend(check);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn read(bytes: &[u8]) -> Option<ResumeToken> {
    let (said, checked) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    if check(said) != *checked {
        return None;
    }
    let (&[version, kind], rest) = said.split_first_chunk()?;
    let (store, rest) = rest.split_first_chunk()?;
    let (log_position, rest) = position(rest)?;
    let (seen, last) = match kind & WITH_SEEN {
        0 => (log_position, rest),
        // One spelling only: an equal position is left out.
        _ => position(rest).filter(|(seen, _)| *seen != log_position)?,
    };
    let last = match last {
        [] => None,
        last => Some(UserId::parse(str::from_utf8(last).ok()?).ok()?),
    };
    let at = match (version, kind & !WITH_SEEN, last) {
        (TOKEN_VERSION, 0, None) => Progress::Changes { after: log_position },
        (TOKEN_VERSION, 1, last) => Progress::Scan { began: log_position, last },
        _ => return None,
    };
    Some(ResumeToken { store: StoreId(*store), at, seen })
}

fn position(bytes: &[u8]) -> Option<(LogPosition, &[u8])> {
    let (revision, rest) = bytes.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let time = Timestamp::from_micros(i64::from_be_bytes(*time));
    Some((LogPosition { revision: u64::from_be_bytes(*revision), time }, rest))
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    std::array::from_fn(|i| hash[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> [ResumeToken; 4] {
        let store = StoreId([7; 16]);
        let log_position = LogPosition { revision: 12_345, time: Timestamp::from_micros(-1) };
        let id = UserId::parse(&"a".repeat(UserId::MAX_BYTES)).unwrap();
        let later = LogPosition { revision: 12_346, ..log_position };
        [
            (Progress::Changes { after: log_position }, log_position),
            (Progress::Changes { after: log_position }, later),
            (Progress::Scan { began: LogPosition::BEGINNING, last: None }, LogPosition::BEGINNING),
            (Progress::Scan { began: log_position, last: Some(id) }, later),
        ]
        .map(|(at, seen)| ResumeToken { store, at, seen })
    }

    #[test]
    fn a_token_says_what_was_put_into_it() {
        for token in tokens() {
            assert_eq!(ResumeToken::parse(&token.encode()), Ok(token));
        }
    }

    #[test]
    fn a_token_with_any_mistake_is_refused() {
        for token in tokens() {
            let text = token.encode();
            for at in 0..text.len() {
                let (before, after) = text.split_at(at);
                let other = if after.starts_with('A') { "B" } else { "A" };
                let changed = format!("{before}{other}{}", &after[1..]);
                assert!(ResumeToken::parse(&changed).is_err(), "{changed} in place of {text}");
                assert!(ResumeToken::parse(before).is_err(), "{before} alone");
            }
            assert!(ResumeToken::parse(&format!("{text}AAAA")).is_err());
        }
        assert!(ResumeToken::parse(&"A".repeat(1_000_000)).is_err());
    }
}
