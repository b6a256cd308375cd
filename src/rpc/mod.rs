//! The parts of a call that listener, layers and service share: the call itself,
//! methods, headers, codes, the framing of messages, statuses, permits of calls in
//! flight, the bytes that are kept for callers, the client's identity, and the GOAWAY signal.
//!
//! It deliberately knows no layer, no store and no method's message.

pub mod audit;
pub mod byte_budget;
pub mod call;
pub mod codes;
pub mod early_refusal;
pub mod framing;
pub mod goaway;
pub mod headers;
pub mod holdings;
pub mod methods;
pub mod peer;
pub mod permits;
pub mod protocol;
// No public module, so that the compiler finds a reason that no status has.
pub(crate) mod reasons;
pub mod source;
pub mod status;
pub mod unread;
