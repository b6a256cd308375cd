use std::error::Error;

const PROTOS: [&str; 3] = ["user.proto", "user/v1/user_service.proto", "grpc/health/v1/health.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let set = protox::compile(PROTOS, ["../../proto"])?;
    prost_build::Config::new().include_file("messages.rs").compile_fds(set)?;
    println!("cargo:rerun-if-changed=../../proto");
    Ok(())
}
