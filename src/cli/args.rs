//! What the command line can say.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{
    Arg, ArgAction, ArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};

use super::{
    USAGE,
    backup::{Backup, Restore},
    check::Check,
    export::Export,
    import::Import,
    smoke::Smoke,
    target::{self, Target},
};
use crate::config::{Config, ConfigErrors, HIDDEN, Inputs, Loaded, SETTINGS, Setting, quote};

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    Serve(Config),
    Migrate(Config),
    Purge(Config),
    Backup(Backup),
    Restore(Restore),
    Config(Loaded),
    Check(Check),
    Smoke(Smoke),
    Export(Export),
    Import(Import),
}

/// Why nothing is done.
#[derive(Debug)]
pub enum ParseError {
    /// Wrong usage, with the code to end with; a call for help is one too.
    Usage(clap::Error, u8),
    Config(ConfigErrors),
}

impl ParseError {
    /// Says why, and how the process is to end.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(error, code) => {
                let error = without_secrets(error);
                // A failure cannot be reported anywhere.
                let _ = error.print();
                let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
                if asked_for { ExitCode::SUCCESS } else { ExitCode::from(code) }
            }
            Self::Config(problems) => {
                eprintln!("user-service: {problems}");
                ExitCode::from(USAGE)
            }
        }
    }
}

/// The same error without what may be a connection string or a password. An unquoted
/// connection string is split into arguments, so a stray argument is shown only where
/// it looks like a flag or a command.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let stray = match error.kind() {
        ErrorKind::UnknownArgument => Some(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict => Some(ContextKind::InvalidSubcommand),
        _ => None,
    };
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    hide(&mut error, stray, |text| !is_word(text));
    hide(&mut error, Some(ContextKind::InvalidValue), |text| quote(text) == HIDDEN);
    error
}

/// Hides a part of an error, and the suggestions that may repeat it.
fn hide(error: &mut clap::Error, part: Option<ContextKind>, is_secret: impl Fn(&str) -> bool) {
    let Some(part) = part else { return };
    if let Some(ContextValue::String(text)) = error.get(part)
        && is_secret(text)
    {
        error.insert(part, ContextValue::String(HIDDEN.into()));
        error.remove(ContextKind::Suggested);
    }
}

/// Reads the command line, and the configuration where the command needs it.
///
/// # Errors
/// The first error of the command line, or all of the configuration.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, ParseError> {
    let args: Vec<_> = args.into_iter().collect();
    // `check` ends as grpc_health_probe does, wrong usage included.
    let usage = if args.get(1).is_some_and(|name| name == "check") { 1 } else { USAGE };
    let matches = program().try_get_matches_from(args).map_err(|error| ParseError::Usage(error, usage))?;
    // The flags say nothing that a server could be called with.
    let wrong_target = |why: String| {
        ParseError::Usage(clap::Error::raw(ErrorKind::ValueValidation, format!("{why}\n")), usage)
    };
    let load = |matches: &ArgMatches| inputs(matches, env).load().map_err(ParseError::Config);
    match matches.subcommand() {
        Some(("check", matches)) => check(matches).map(Command::Check).map_err(wrong_target),
        Some(("smoke", matches)) => smoke(matches).map(Command::Smoke).map_err(wrong_target),
        Some(("export", matches)) => export(matches).map(Command::Export).map_err(wrong_target),
        Some(("import", matches)) => import(matches).map(Command::Import).map_err(wrong_target),
        Some(("migrate", matches)) => Ok(Command::Migrate(load(matches)?.config)),
        Some(("purge", matches)) => Ok(Command::Purge(load(matches)?.config)),
        Some(("backup", matches)) => {
            Ok(Command::Backup(Backup { config: load(matches)?.config, to: file(matches) }))
        }
        Some(("restore", matches)) => Ok(Command::Restore(Restore {
            config: load(matches)?.config,
            from: file(matches),
            replace: matches.get_flag("replace"),
        })),
        Some(("config", matches)) => Ok(Command::Config(load(matches)?)),
        Some((_, matches)) => Ok(Command::Serve(load(matches)?.config)),
        None => Ok(Command::Serve(load(&matches)?.config)),
    }
}

/// In which order sources win, for the foot of the help.
const PRECEDENCE: &str = "Each setting can also be given in the environment or in a TOML file.\n\
    A flag wins over the environment, and that over the file.";

const CHECK_CODES: &str = "Ends with 0: serving, 1: wrong usage, 2: could not connect, \
    3: the call failed, 4: not serving";

const IMPORT_CODES: &str = "Ends with 0: every user is stored, 1: could not go on (repeat it: nobody is \
    created twice),\n64: wrong usage, 65: some lines were refused";

fn program() -> clap::Command {
    clap::Command::new("user-service")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A gRPC user service")
        .after_help(PRECEDENCE)
        .args_override_self(true)
        .args_conflicts_with_subcommands(true)
        .args(settings())
        .subcommand(configured("serve", "Serve (what happens without a command, too)"))
        .subcommand(
            clap::Command::new("check")
                .about("Ask a server for its health")
                .after_help(CHECK_CODES)
                .arg(addr())
                .arg(service())
                .arg(millis("connect-timeout-ms", "1000", "How long connecting may take"))
                .arg(millis("timeout-ms", "1000", "How long the answer may take"))
                .args(target::args()),
        )
        .subcommand(
            clap::Command::new("smoke")
                .about("Try a deployment with a temporary user; leaves nothing behind")
                .arg(addr())
                .arg(millis("timeout-ms", "10000", "How long each step may take"))
                .args(target::args()),
        )
        .subcommand(
            clap::Command::new("export")
                .about("Write every user of a server as JSON Lines, ordered by id")
                .arg(server())
                .arg(
                    path(
                        "output",
                        "Write to this file, private and whole or not at all; else, or for -, to stdout",
                    )
                    .short('o'),
                )
                .arg(retry_timeout())
                .args(target::args()),
        )
        .subcommand(
            clap::Command::new("import")
                .about("Store users from JSON Lines on a server; may be repeated")
                .after_help(IMPORT_CODES)
                .arg(server())
                .arg(
                    Arg::new("files")
                        .value_name("FILE")
                        .num_args(0..)
                        .value_parser(value_parser!(PathBuf))
                        .default_value(super::PIPE)
                        .hide_default_value(true)
                        .help("What to read; without one, or -, stdin"),
                )
                .arg(path("report", "Write what was refused, and why, to this file; else to stderr"))
                .arg(retry_timeout())
                .args(target::args()),
        )
        .subcommand(configured("migrate", "Bring the store to this version's schema"))
        .subcommand(configured("purge", "Erase deleted users' names and addresses from the change log"))
        .subcommand(
            configured("backup", "Write a store that may be in use into one private file, and check it")
                .arg(backup_file("TO", "Where to; an older backup is replaced. -: stdout")),
        )
        .subcommand(
            configured("restore", "Put a backup into a store that is not served")
                .arg(backup_file("FROM", "What to restore. -: stdin"))
                .arg(
                    Arg::new("replace").long("replace").action(ArgAction::SetTrue).help(
                        "Restore over users that are there; SQLite keeps the old file as FILE.replaced",
                    ),
                ),
        )
        .subcommand(configured("config", "Print the configuration in effect, each value with its source"))
}

/// A command that takes every setting.
fn configured(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name).about(about).after_help(PRECEDENCE).args(settings())
}

fn backup_file(name: &'static str, help: &'static str) -> Arg {
    Arg::new("file").value_name(name).required(true).value_parser(value_parser!(PathBuf)).help(help)
}

fn file(matches: &ArgMatches) -> PathBuf {
    matches.get_one("file").cloned().expect("it is required")
}

/// A flag for each setting, and one for the file.
fn settings() -> impl Iterator<Item = Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Read settings from this TOML file [env: USERSVC_CONFIG]");
    std::iter::once(file).chain(SETTINGS.iter().map(setting))
}

fn setting(key: &'static Setting) -> Arg {
    let doc = key.doc.replace('`', "");
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.placeholder)
        .allow_negative_numbers(true)
        .help_heading(key.group)
        .help(format!("{doc} [default: {}] [env: {}]", key.default(), key.env()))
}

fn inputs(matches: &ArgMatches, env: impl IntoIterator<Item = (OsString, OsString)>) -> Inputs {
    let flag = |key: &Setting| matches.get_one::<String>(key.name).map(|value| (key.name, value.clone()));
    Inputs {
        file: matches.get_one("config").cloned(),
        env: env.into_iter().collect(),
        flags: SETTINGS.iter().filter_map(flag).collect(),
    }
}

fn addr() -> Arg {
    Arg::new("addr")
        .value_name("HOST:PORT")
        .required(true)
        .value_parser(host_and_port)
        .help("Where the server is, such as localhost:50051 or [::1]:50051")
}

fn server() -> Arg {
    Arg::new("server")
        .long("server")
        .value_name("HOST:PORT")
        .default_value("localhost:50051")
        .value_parser(host_and_port)
        .help("Where the server is")
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
}

fn retry_timeout() -> Arg {
    millis("retry-timeout-ms", "60000", "How long to try again without getting any further")
}

fn service() -> Arg {
    Arg::new("service")
        .long("service")
        .value_name("NAME")
        .default_value("")
        .help("Whose health; without it, the server's")
}

/// Takes what names a host and a port, and nothing else.
fn host_and_port(text: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "must be a host and a port, such as localhost:50051 or [::1]:50051";
    let authority: http::uri::Authority = text.parse().map_err(|_| EXPECTED)?;
    let complete = !authority.host().is_empty() && authority.port_u16().is_some() && !text.contains('@');
    if complete { Ok(text.into()) } else { Err(EXPECTED) }
}

fn millis(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("MS")
        .default_value(default)
        .value_parser(value_parser!(u64).range(1..=86_400_000))
        .help(help)
}

fn duration(matches: &ArgMatches, name: &str) -> Duration {
    Duration::from_millis(*matches.get_one(name).expect("it has a default"))
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().expect("it is required or has a default")
}

fn target(matches: &ArgMatches, addr: &str) -> Result<Target, String> {
    Target::new(text(matches, addr), matches)
}

fn check(matches: &ArgMatches) -> Result<Check, String> {
    Ok(Check {
        target: target(matches, "addr")?,
        service: text(matches, "service"),
        connect_timeout: duration(matches, "connect-timeout-ms"),
        timeout: duration(matches, "timeout-ms"),
    })
}

fn smoke(matches: &ArgMatches) -> Result<Smoke, String> {
    Ok(Smoke { target: target(matches, "addr")?, timeout: duration(matches, "timeout-ms") })
}

fn export(matches: &ArgMatches) -> Result<Export, String> {
    Ok(Export {
        server: target(matches, "server")?,
        output: matches.get_one("output").filter(|path| *path != Path::new("-")).cloned(),
        retry_timeout: duration(matches, "retry-timeout-ms"),
    })
}

fn import(matches: &ArgMatches) -> Result<Import, String> {
    Ok(Import {
        server: target(matches, "server")?,
        files: matches.get_many("files").unwrap_or_default().cloned().collect(),
        report: matches.get_one("report").cloned(),
        retry_timeout: duration(matches, "retry-timeout-ms"),
    })
}
