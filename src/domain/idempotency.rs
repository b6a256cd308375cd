//! How a store knows a repeated write again.

use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Who calls: an opaque identity that nothing but equality is asked of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(Option<Arc<str>>);

impl Caller {
    /// A caller without a name.
    pub const ANONYMOUS: Self = Self(None);

    /// A caller by its name, which no other caller has.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(Some(name.into()))
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// What a caller names a write by, to repeat it safely (AIP-155).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Reads a UUID in its usual spelling.
    ///
    /// # Errors
    /// A text that says what a request id looks like.
    pub fn parse(request_id: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057";
        if request_id.len() != 36 {
            return Err(EXPECTED);
        }
        match Uuid::try_parse(request_id) {
            Ok(uuid) if !uuid.is_nil() => Ok(Self(uuid)),
            _ => Err(EXPECTED),
        }
    }
}

/// How a store knows a repeated write again. Both parts are hashes, so the row
/// that keeps them holds no personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Which write: the caller, the method and the request id.
    pub key: [u8; 32],
    /// What it asked for.
    pub payload: [u8; 32],
}

impl Idempotency {
    /// How long a write is known again.
    pub const RETENTION: Duration = Duration::from_hours(24);

    pub fn new(caller: &Caller, method: &str, request_id: RequestId, payload: &[u8]) -> Self {
        let mut key = Sha256::new();
        // Lengths first, so that no two triples run together to the same bytes.
        for part in [caller.name().as_bytes(), method.as_bytes()] {
            key.update(part.len().to_be_bytes());
            key.update(part);
        }
        key.update(request_id.0.as_bytes());
        Self { key: key.finalize().into(), payload: Sha256::digest(payload).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_of_one_spelling() {
        assert!(RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").is_ok());
        for bad in [
            "",
            "x",
            "00000000-0000-0000-0000-000000000000",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
        ] {
            assert!(RequestId::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_key_tells_callers_methods_and_requests_apart() {
        let request = RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
        let other = RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8058").unwrap();
        let bob = Caller::named("bob");
        let keys = [
            Idempotency::new(&Caller::ANONYMOUS, "Create", request, b"p").key,
            Idempotency::new(&bob, "Create", request, b"p").key,
            Idempotency::new(&bob, "Delete", request, b"p").key,
            Idempotency::new(&bob, "Delete", other, b"p").key,
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key));
        }
    }
}
