//! Compiles the protos with protox, so that building needs no protoc.
//!
//! Two results: Rust code for each package, and one encoded descriptor set with
//! comments kept, which reflection serves.
//!
//! Where the program is linked to musl, also functions that are faster than musl's own.

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

    // Only health is served by generated code; `service/router.rs` has the rest.
    for served in [true, false] {
        let mut set = set.clone();
        set.file.retain(|file| (file.package() == "grpc.health.v1") == served);
        tonic_prost_build::configure()
            .build_transport(false)
            .build_server(served)
            // tonic-health has these two types and a client; only List is ours.
            .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
            .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
            .extern_path(".google.rpc.Status", "::tonic_types::Status")
            .compile_fds(set)?;
    }
    replace_slow_libc()
}

/// musl's copying is made to be small on x86-64, and was a fifth of the time of a
/// call (docs/PERFORMANCE.md). Other architectures have their own, which is quick.
fn replace_slow_libc() -> Result<(), Box<dyn Error>> {
    const SOURCE: &str = "src/libc/memory.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let target = |part| env::var(format!("CARGO_CFG_TARGET_{part}"));
    if target("ENV")? == "musl" && target("ARCH")? == "x86_64" {
        cc::Build::new()
            .file(SOURCE)
            .opt_level(2)
            // Otherwise the compiler turns the loop of memmove into a call of memmove.
            .flags(["-ffreestanding", "-fno-tree-loop-distribute-patterns"])
            // Whether or not anything asked for it before libc comes to be linked.
            .link_lib_modifier("+whole-archive")
            .try_compile("memory")?;
    }
    Ok(())
}
