//! The process: arguments and environment in, an exit code out.

use std::{env, process::ExitCode};

/// Less CPU and less memory for each connection than the system's, most of all
/// than musl's, which the image is linked with (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    user_service::cli::run(env::args_os(), env::vars_os())
}
