//! Why a call is denied.

use crate::domain::Caller;

/// Why a call is denied. The wire says only whether an identity is missing, refused or
/// not enough; the metric and the audit line name the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Neither a token nor a certificate.
    Missing,
    /// A token where none is taken.
    TokenUnexpected,
    /// `authorization` is there twice, is no bearer token, or the token is no JWT.
    Malformed,
    TooLarge,
    /// No key of the set has the token's `kid`.
    UnknownKey,
    /// The token's algorithm is not that of its key.
    Algorithm,
    Signature,
    Expired,
    Early,
    Issuer,
    Audience,
    /// A claim that is required is missing or cannot be used.
    Claims,
    /// The identity is good, and has no role for the method.
    NotPermitted(Caller),
}

impl Denial {
    /// Every value of the metric's label `reason`, that of another user's record last.
    pub const REASONS: [&'static str; 14] = [
        "missing",
        "token_unexpected",
        "malformed",
        "too_large",
        "unknown_key",
        "algorithm",
        "signature",
        "expired",
        "early",
        "issuer",
        "audience",
        "claims",
        "not_permitted",
        "not_own",
    ];

    /// Its place in [`Self::REASONS`].
    pub fn index(&self) -> usize {
        match self {
            Self::Missing => 0,
            Self::TokenUnexpected => 1,
            Self::Malformed => 2,
            Self::TooLarge => 3,
            Self::UnknownKey => 4,
            Self::Algorithm => 5,
            Self::Signature => 6,
            Self::Expired => 7,
            Self::Early => 8,
            Self::Issuer => 9,
            Self::Audience => 10,
            Self::Claims => 11,
            Self::NotPermitted(_) => 12,
        }
    }

    /// As the audit line names it.
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }
}
