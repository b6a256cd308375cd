//! Certificates, keys and the crypto provider, for the port of the API and for clients.
//!
//! **Invariant:** one provider, aws-lc-rs, serves every connection of the process. No
//! error repeats the bytes of a file, because they may be a private key.

mod client;
mod pem;

use std::sync::Arc;

use rustls::crypto::{
    CryptoProvider,
    aws_lc_rs::{self, kx_group},
};

pub use self::{
    client::ClientFiles,
    pem::{Certificate, certificates, private_key, read, roots},
};

/// The provider. X25519MLKEM768 comes first, so it is negotiated with each peer that
/// offers it; aws-lc-rs by itself would choose X25519.
pub fn provider() -> Arc<CryptoProvider> {
    let kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}
