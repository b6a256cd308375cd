//! The gRPC surface: one file for each served service.
//!
//! **Invariant:** domain errors become statuses in `error_status` and nowhere else. The
//! service deliberately knows no SQL and no connection.

mod article;
mod convert;
mod error_log;
mod error_status;
pub mod health;
mod reflection;
mod response_body;
mod router;
mod store_handle;
pub mod streaming;
pub mod unary;
mod user_v1;
mod violations;

pub use health::Health;
pub use reflection::served_files;
pub use response_body::ResponseBody;
pub use router::Router;
pub use store_handle::StoreSlot;

#[cfg(test)]
mod testing;

#[cfg(test)]
mod error_size {
    mod tests;
}
