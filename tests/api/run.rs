//! Runs a foreign program to its end.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// What a program that ended had to say.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Ends the test unless the program ended with this code.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        let Self { code: was, stdout, stderr } = &self;
        assert_eq!(*was, code, "the program's exit code; it said\n{stdout}\nand\n{stderr}");
        self
    }
}

/// A file of this repository.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A program that `make tools` has brought, cut off should it hang.
pub fn tool(relative: &str) -> Command {
    let program = path(relative);
    assert!(program.exists(), "{relative} is not there: run `make tools` first");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(program).current_dir(path(""));
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().expect("the command starts");
    Ended {
        code: status.code().unwrap_or_else(|| panic!("{command:?} ended by a signal: {status}")),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// The client with grpc-go and connect-go.
pub fn go(part: &str, addr: &impl ToString) -> Command {
    let mut command = tool("bin/go-client");
    command.arg(part).arg(addr.to_string());
    command
}

/// A script with grpcio and these stubs.
pub fn python(script: &str, stubs: &str, addr: &impl ToString) -> Command {
    let mut command = tool(".venv/bin/python");
    command.env("PYTHONPATH", path("target/clients/python").join(stubs)).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(path("tests/api/clients/python").join(script)).arg(addr.to_string());
    command
}

/// A script with the libraries of Node.js.
pub fn node(script: &str, addr: &impl ToString) -> Command {
    let folder = path("tests/api/clients/node");
    assert!(folder.join("node_modules").exists(), "node_modules is not there: run `make tools` first");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "node"]).arg(folder.join(script));
    command.arg(addr.to_string()).arg(path("proto"));
    command
}
