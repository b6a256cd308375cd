//! What listener, layers and service share of a call: what is known of it, the
//! methods, headers and codes, the framing of messages, statuses, the permits of calls
//! in flight, the bytes of answers that wait to be read, and the signal that a connection
//! is to go away.

pub mod call;
pub mod codes;
pub mod framing;
pub mod goaway;
pub mod headers;
pub mod methods;
pub mod permits;
pub mod status;
pub mod unread;
