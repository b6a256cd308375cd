//! Compiles the protos with protox, so that building needs no protoc.
//!
//! Two results: Rust code for each package, and one encoded descriptor set with
//! comments kept, which reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: [&str; 3] = ["user.proto", "user/v1/user_service.proto", "grpc/health/v1/health.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    let set =
        compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?.file_descriptor_set();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;

    tonic_prost_build::configure()
        .build_transport(false)
        // tonic-health has these two types and a client; only List is ours.
        .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
        .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(set)?;
    Ok(())
}
