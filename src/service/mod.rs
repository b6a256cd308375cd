//! The gRPC surface.

pub mod health;
pub mod methods;
mod router;
pub mod status;

pub use health::Health;
pub use router::{Router, StoreSlot};
