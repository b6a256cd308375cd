//! E-mail addresses.

use std::fmt;

use email_address::{EmailAddress, Options};

/// An e-mail address in its one stored spelling: trimmed, lower case, the domain
/// in ASCII (IDNA, UTS #46). Two addresses that mean the same mailbox by these
/// rules are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(Box<str>);

impl Email {
    /// The longest address, in bytes (RFC 5321, 4.5.3.1.3, less the brackets).
    pub const MAX_BYTES: usize = 254;

    /// Trims, normalises and checks an address.
    ///
    /// # Errors
    /// A text that says what an address looks like; it never holds the address.
    pub fn parse(email: &str) -> Result<Self, &'static str> {
        const LENGTH: &str = "must be 3 to 254 bytes long";
        const FORM: &str = "must be an e-mail address: a mailbox, an at sign and a domain";
        let email = email.trim();
        if !(3..=Self::MAX_BYTES).contains(&email.len()) {
            return Err(LENGTH);
        }
        let (local, domain) = email.rsplit_once('@').ok_or(FORM)?;
        if !local.is_ascii() {
            return Err("must be ASCII before the at sign");
        }
        let domain = idna::domain_to_ascii(domain).map_err(|_| FORM)?;
        let mut normal = format!("{local}@{domain}");
        normal.make_ascii_lowercase();
        if normal.len() > Self::MAX_BYTES {
            return Err(LENGTH);
        }
        // A mailbox only: no display name around it, no machine's address in it.
        let options = Options::default().without_display_text().without_domain_literal();
        EmailAddress::parse_with_options(&normal, options).map_err(|_| FORM)?;
        Ok(Self(normal.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Addresses are personal data: a stray `{:?}` in a log line must not show one.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_equal() {
        for (input, stored) in [
            ("  Ada@Example.COM ", "ada@example.com"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
            ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
            ("a+b@x.io", "a+b@x.io"),
        ] {
            assert_eq!(Email::parse(input).unwrap().as_str(), stored);
        }
        let stored = Email::parse("Ada@Bücher.example").unwrap();
        assert_eq!(Email::parse(stored.as_str()), Ok(stored.clone()), "normalising is idempotent");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "a@",
            "@b",
            "plain",
            "a b@example.com",
            "ä@example.com",
            "a@[127.0.0.1]",
            "a@b@",
            "Ada <ada@example.com>",
            "a@exa mple.com",
            "a\u{0}@example.com",
            &long,
        ] {
            let error = Email::parse(bad).expect_err(bad);
            assert!(bad.is_empty() || !error.contains(bad));
        }
    }

    #[test]
    fn debug_output_shows_no_address() {
        assert!(!format!("{:?}", Email::parse("ada@example.com").unwrap()).contains("ada"));
    }
}
