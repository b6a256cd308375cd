use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let set = protox::compile(["user.proto"], ["../../proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("user.fds"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    println!("cargo:rerun-if-changed=../../proto/user.proto");
    Ok(())
}
