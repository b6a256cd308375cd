//! What the disk and `SQLite` give at best, to hold the service's durable writes
//! against: the rate of fdatasync, and a bare loop that inserts the service's rows
//! in the service's schema, a commit a batch. One line of JSON on standard output.

use std::{
    error::Error,
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use rusqlite::{Connection, params};

const SCHEMA: &str = concat!(
    include_str!("../../../src/store/sqlite/migrations/0001_users.sql"),
    include_str!("../../../src/store/sqlite/migrations/0002_after_image.sql")
);
const PAGE_BYTES: usize = 4096;
const PAGES: u64 = 4096;
/// Any time will do, as long as it takes as many bytes as today's.
const NOW_MICROS: i64 = 1_767_225_600_000_000;

#[derive(Parser)]
struct Args {
    /// A file to make, on the disk in question.
    path: PathBuf,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Overwrites pages of a file that is there already, a sync for each.
    Fdatasync,
    /// Inserts users, as durably as the service does.
    Sqlite {
        /// Users in a commit.
        #[arg(long)]
        batch: i64,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let time = Duration::from_secs_f64(args.seconds);
    let result = match args.command {
        Command::Fdatasync => fdatasync(&args.path, time),
        Command::Sqlite { batch } => sqlite(&args.path, batch, time),
    };
    match result {
        Ok(per_second) => {
            println!("{{\"per_second\": {per_second:.1}}}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("disk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fdatasync(path: &Path, time: Duration) -> Result<f64, Box<dyn Error>> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let page = [0x5a; PAGE_BYTES];
    for _ in 0..PAGES {
        file.write_all(&page)?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let mut syncs = 0;
    while began.elapsed() < time {
        if syncs % PAGES == 0 {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&page)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(rate(syncs, began))
}

fn sqlite(path: &Path, batch: i64, time: Duration) -> Result<f64, Box<dyn Error>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    let began = Instant::now();
    let mut revision = 0;
    while began.elapsed() < time {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..batch {
            revision += 1;
            insert(&connection, revision)?;
        }
        connection.prepare_cached("UPDATE meta SET revision = ?1")?.execute([revision])?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(rate(revision.cast_unsigned(), began))
}

fn insert(connection: &Connection, revision: i64) -> rusqlite::Result<()> {
    let (id, name) = (format!("u-{revision:09}"), format!("User Number {revision}"));
    let (email, age) = (format!("user.{revision}@example.com"), revision % 100);
    connection
        .prepare_cached("INSERT INTO users VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)")?
        .execute(params![id, name, email, age, revision, NOW_MICROS])?;
    connection
        .prepare_cached("INSERT INTO changes VALUES (?1, ?2, 1, ?3, ?4)")?
        .execute(params![revision, NOW_MICROS, id, after_image(&name, &email, age)])?;
    Ok(())
}

/// The user as the service's change log has it.
fn after_image(name: &str, email: &str, age: i64) -> String {
    let time = NOW_MICROS;
    format!(
        r#"{{"name":"{name}","email":"{email}","age":{age},"create_time":{time},"update_time":{time}}}"#
    )
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(done: u64, began: Instant) -> f64 {
    done as f64 / began.elapsed().as_secs_f64()
}
