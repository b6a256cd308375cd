//! The gRPC surface.

mod article;
mod call;
mod faults;
pub mod headers;
pub mod health;
pub mod leaving;
pub mod methods;
mod reflection;
mod reply;
mod router;
pub mod status;
mod unary;
mod user_v1;
mod violations;

pub use call::StoreSlot;
pub use health::Health;
pub use router::Router;

#[cfg(test)]
mod testing;
