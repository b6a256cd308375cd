//! Pages of a listing (AIP-158).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::UserId;

/// The most users in one page, and the most ids in one batch.
pub const MAX_PAGE_SIZE: usize = 1_000;

const DEFAULT_PAGE_SIZE: usize = 50;

/// How many users a page holds at most: 1 to [`MAX_PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(usize);

impl PageSize {
    /// A page size of our own.
    pub const fn at_most(size: usize) -> Self {
        assert!(0 < size && size <= MAX_PAGE_SIZE, "a page has at least one user and not too many");
        Self(size)
    }

    /// Reads a page size: 0 means the default, more than the maximum means the
    /// maximum.
    ///
    /// # Errors
    /// A text that says what a page size is, for a negative one.
    pub fn parse(size: i32) -> Result<Self, &'static str> {
        match usize::try_from(size) {
            Ok(0) => Ok(Self(DEFAULT_PAGE_SIZE)),
            Ok(size) => Ok(Self(size.min(MAX_PAGE_SIZE))),
            Err(_) => Err("must not be negative"),
        }
    }

    pub fn get(self) -> usize {
        self.0
    }
}

/// Where the next page begins: after this id. Opaque to callers, and good for as
/// long as ids keep their order, whatever is inserted or deleted between pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(UserId);

/// What a token begins with, so that a later form can be told apart.
const TOKEN_VERSION: &str = "1:";

impl PageToken {
    pub fn after(id: UserId) -> Self {
        Self(id)
    }

    /// Reads a token that a caller sent back.
    ///
    /// # Errors
    /// A text that says where tokens come from.
    pub fn parse(token: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be a next_page_token as this service returned it";
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| EXPECTED)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| EXPECTED)?;
        let id = text.strip_prefix(TOKEN_VERSION).ok_or(EXPECTED)?;
        UserId::parse(id).map(Self).map_err(|_| EXPECTED)
    }

    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{TOKEN_VERSION}{}", self.0.as_str()))
    }

    /// The last id of the page before.
    pub fn id(&self) -> &UserId {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_default_and_a_maximum() {
        for (asked, got) in [(0, 50), (1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
            assert_eq!(PageSize::parse(asked).unwrap().get(), got);
        }
        assert!(PageSize::parse(-1).is_err());
    }

    #[test]
    fn only_own_tokens_are_read() {
        let token = PageToken::after(UserId::parse("user-1").unwrap());
        assert_eq!(PageToken::parse(&token.encode()), Ok(token));
        for bad in ["x", "!", "dXNlci0x", "MTo", "MTpVU0VS"] {
            assert!(PageToken::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
