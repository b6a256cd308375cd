//! The command line: what was asked for, and with which code the process ends.
//!
//! **Invariant:** only this module writes to stdout, or to stderr as plain text. Commands
//! that call a server deliberately know its API alone, and open no store.

mod args;
mod backup;
mod check;
mod client;
mod console;
mod export;
mod http2_probe;
mod import;
pub(crate) mod jsonl;
mod output;
mod retry;
mod smoke;
mod target;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Write},
    process::ExitCode,
};

pub use args::{Command, ParseError, parse};

use crate::{
    app::{self, App, StartError},
    config::Config,
    shutdown::Ended,
    store, telemetry,
};

/// What stands for stdout and for stdin among names of files.
const PIPE: &str = "-";

/// Used wrongly, or configured wrongly (`EX_USAGE`).
const USAGE: u8 = 64;
/// Could not start.
const FAILURE: u8 = 1;
/// Some of what was to be imported was refused (`EX_DATAERR`).
const REFUSED: u8 = 65;
/// The drain's time was up with calls in flight (`EX_TEMPFAIL`).
const CALLS_CUT: u8 = 75;

/// Does what `args` ask for. The environment is given and never read from within.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let env: HashMap<OsString, OsString> = env.into_iter().collect();
    match parse(args, env.clone()) {
        Ok(Command::Serve(config)) => serve(config, &env),
        Ok(Command::Migrate(config)) => migrate(&config),
        Ok(Command::Purge(config)) => purge(&config),
        Ok(Command::Backup(backup)) => backup.run(),
        Ok(Command::Restore(restore)) => restore.run(),
        Ok(Command::Config(loaded)) => match io::stdout().write_all(loaded.to_toml().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(FAILURE, &error),
        },
        Ok(Command::Check(check)) => block_on(check.run()),
        Ok(Command::Smoke(smoke)) => block_on(smoke.run()),
        Ok(Command::Export(export)) => block_on(export.run()),
        Ok(Command::Import(import)) => block_on(import.run()),
        Err(refusal) => refusal.report(),
    }
}

/// Runs a command on a new runtime; one thread is enough for a client.
fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("user-service: cannot start a runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config, env: &HashMap<OsString, OsString>) -> ExitCode {
    let runtime = match app::control_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(FAILURE, &StartError::from(error)),
    };
    let lookup = |name: &str| env.get(OsStr::new(name))?.to_str().map(String::from);
    let code = runtime.block_on(async {
        let flush_timeout = config.flush_timeout;
        let telemetry = match telemetry::init(&config, &lookup) {
            Ok(telemetry) => telemetry,
            Err(error) => return failed(USAGE, &error),
        };
        let ended = async { App::build(config)?.run(&telemetry).await }.await;
        // Last, so that the spans of the drain are sent as well.
        telemetry.shutdown(flush_timeout).await;
        match ended {
            Ok(Ended::Clean) => ExitCode::SUCCESS,
            Ok(Ended::CallsCut) => ExitCode::from(CALLS_CUT),
            Err(error) => failed(FAILURE, &error),
        }
    });
    // Not a plain drop, which would wait for a store that is still opening.
    runtime.shutdown_background();
    code
}

fn migrate(config: &Config) -> ExitCode {
    match store::migrate(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(FAILURE, &error),
    }
}

fn purge(config: &Config) -> ExitCode {
    match store::purge(config) {
        Ok(erased) => {
            console::say(format!("{erased} changes of deleted users were erased"));
            ExitCode::SUCCESS
        }
        Err(error) => failed(FAILURE, &error),
    }
}

fn failed(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("user-service: {error}");
    ExitCode::from(code)
}
