//! The command line: what was asked for, and with which code the process ends.

mod args;
mod check;
mod client;
mod smoke;

use std::{ffi::OsString, process::ExitCode};

pub use args::{Command, Refusal, parse};

use crate::config::Config;

/// Used wrongly, or configured wrongly (`EX_USAGE`).
const USAGE: u8 = 64;
/// Could not start.
const FAILURE: u8 = 1;

/// Does what `args` ask for. The environment is given and never read from within.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    match parse(args, env) {
        Ok(Command::Serve(config)) => serve(config),
        Ok(Command::Migrate(config)) => migrate(&config),
        Ok(Command::Config(loaded)) => {
            print!("{}", loaded.to_toml());
            ExitCode::SUCCESS
        }
        Ok(Command::Check(check)) => client::block_on(check.run()),
        Ok(Command::Smoke(smoke)) => client::block_on(smoke.run()),
        Err(refusal) => refusal.report(),
    }
}

fn serve(_config: Config) -> ExitCode {
    eprintln!("user-service: serve is not built in yet");
    ExitCode::from(FAILURE)
}

fn migrate(_config: &Config) -> ExitCode {
    eprintln!("user-service: migrate is not built in yet");
    ExitCode::from(FAILURE)
}
