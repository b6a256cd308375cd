//! Loads a server in the ways that h2load does not: another key with every call,
//! writes, an arrival rate that does not wait for answers. One thread; one line of
//! JSON on standard output.

mod calls;
mod closed;
mod connection;
mod list;
mod open;
mod start;
mod summary;
mod target;
mod watch;
mod web;

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

use calls::Kind;
use target::Target;

#[allow(dead_code, clippy::all, clippy::pedantic, reason = "generated, and only a part is used")]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    target: target::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A fixed number of calls in flight: the next one starts when one ends.
    Closed(closed::Options),
    /// A fixed arrival rate, whatever the server answers.
    Open(open::Options),
    /// A full listing, page by page.
    List(list::Options),
    /// Watches that read whatever comes.
    Watch(watch::Options),
    /// The calls of browsers and scripts: Connect and gRPC-Web.
    Web(web::Options),
    /// Runs a server and waits until its health says SERVING; stops it.
    Start(start::Options),
}

/// Which calls are made; shared by the closed and the open loop.
#[derive(clap::Args, Clone)]
pub struct Which {
    #[arg(long, value_enum)]
    kind: Kind,
    /// Reads pick a user below this number at random.
    #[arg(long, default_value_t = 1)]
    users: u64,
    /// The number of the first user that is created.
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = tokio::task::LocalSet::new().block_on(&runtime, async {
        let target = Target::new(&args.target)?;
        match args.command {
            Command::Closed(options) => closed::run(&target, options).await,
            Command::Open(options) => open::run(&target, options).await,
            Command::List(options) => list::run(&target, options).await,
            Command::Watch(options) => watch::run(&target, options).await,
            Command::Web(options) => web::run(&target, options).await,
            Command::Start(options) => start::run(&target, options).await,
        }
    });
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn Error) -> ExitCode {
    eprintln!("load: {error}");
    ExitCode::FAILURE
}
