use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let set = protox::compile(["user.proto"], ["../../../proto"])?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("user.fds");
    fs::write(&descriptors, set.encode_to_vec())?;
    connectrpc_build::Config::new()
        .descriptor_set(descriptors)
        .files(&["user.proto"])
        .gate_client_feature(true)
        .include_file("contract.rs")
        .compile()?;
    println!("cargo:rerun-if-changed=../../../proto/user.proto");
    Ok(())
}
