//! The process: arguments and environment in, an exit code out.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    user_service::cli::run(env::args_os(), env::vars_os())
}
