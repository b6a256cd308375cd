//! What several modules need, is none of theirs, and no library has.
//!
//! **Invariant:** nothing here imports a module of this crate, or knows one.

#[cfg(test)]
pub mod actor;
pub mod backoff;
pub mod bounded_file;
pub mod counter;
pub mod error_chain;
pub mod fault_point;
pub mod guarded_body;
pub mod gzip;
pub mod log_throttle;
pub mod registry;
#[cfg(test)]
pub mod simulation;
