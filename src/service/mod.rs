//! The gRPC surface.

mod article;
pub mod call;
mod faults;
pub mod headers;
pub mod health;
pub mod leaving;
pub mod methods;
pub mod places;
mod reflection;
mod reply;
mod router;
pub mod status;
mod streaming;
mod unary;
mod user_v1;
mod users;
mod violations;

pub use health::Health;
pub use router::Router;
pub use users::StoreSlot;

#[cfg(test)]
mod testing;
