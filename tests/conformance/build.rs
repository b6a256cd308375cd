//! Compiles the messages of both suites from their Go modules, which `go.sum` of
//! `tools/suites` vouches for. Nothing of theirs is kept in this project.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::FileDescriptorSet;

/// The services and the messages of the runner's own protocol.
const CONFORMANCE: [&str; 2] =
    ["connectrpc/conformance/v1/service.proto", "connectrpc/conformance/v1/server_compat.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/suites");
    println!("cargo::rerun-if-changed={}", tools.display());

    go(&tools, &["mod", "download", "connectrpc.com/conformance"])?;
    let module = go(&tools, &["list", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance"])?;
    let protos = Path::new(std::str::from_utf8(&module)?.trim()).join("proto");
    let mut compiler = protox::Compiler::new([protos])?;
    let mut set = compiler.include_imports(true).open_files(CONFORMANCE)?.file_descriptor_set();

    let interop = FileDescriptorSet::decode(&*go(&tools, &["run", "./descriptors"])?)?;
    set.file.extend(interop.file);

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    // Types have names, because the conformance service puts messages into Any.
    prost_build::Config::new().enable_type_names().compile_fds(set)?;
    Ok(())
}

/// The output of a command of Go in this folder.
fn go(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = Command::new("go").args(arguments).current_dir(folder).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("go {}: {said}", arguments.join(" ")).into());
    }
    Ok(output.stdout)
}
