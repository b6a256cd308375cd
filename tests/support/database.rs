//! A real `PostgreSQL` on a free port, as a user who is not root.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use user_service::config::{Config, PostgresUrl, StoreUrl};

use super::{TEST_TIMEOUT, free_port};

/// Whom root becomes, because the server refuses to run as root.
const NOBODY: u32 = 65_534;

/// Ends the server with the signal that it is told, or when whoever started it is
/// gone, however that went; then nobody needs the data any more. PostgreSQL is quickest
/// by QUIT, which others ignore as jobs of a shell do.
pub const KEEPER: &str = r#"
    dir=$1; shift; "$@" & pid=$!
    if read -r signal; then
        kill -"$signal" $pid; wait $pid
    else
        kill -QUIT $pid; kill -TERM $pid; wait $pid; cd /; rm -rf "$dir"
    fi
"#;

pub struct Database {
    dir: TempDir,
    pub port: u16,
    settings: Vec<String>,
    keeper: Option<Child>,
}

/// The server that tests share, each with a database of its own.
pub fn shared() -> &'static Database {
    static SHARED: OnceLock<Database> = OnceLock::new();
    SHARED.get_or_init(Database::start)
}

/// The variable that names the folder of another server's programs.
const PROGRAMS: &str = "TEST_POSTGRES";

/// A program of the server that is tested with.
fn server(name: &str) -> PathBuf {
    let Some(programs) = env::var_os(PROGRAMS) else { return debians(name) };
    let path = Path::new(&programs).join(name);
    assert!(path.is_absolute() && path.exists(), "{PROGRAMS} names a folder with {name}: {}", path.display());
    path
}

/// The newest one that is installed.
fn debians(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

pub fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    give(dir);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Makes a file the server's own.
pub fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

impl Database {
    pub fn start() -> Self {
        Self::start_with(&[], |_| {})
    }

    /// The same with settings, and with what `prepare` changes in its directory.
    pub fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir_in(env::temp_dir()).unwrap();
        let made = command(&server("initdb"), dir.path())
            .args([
                "--pgdata=data",
                "--username=tests",
                "--auth=trust",
                "--no-sync",
                "--locale=C",
                "--encoding=UTF8",
            ])
            .output()
            .expect("initdb is there: tools/packages.sh installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        prepare(dir.path());
        let settings = settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]).collect();
        let mut database = Self { dir, port: free_port(), settings, keeper: None };
        database.run();
        database
    }

    /// A standby that this one streams to, and waits for at each commit from now on.
    pub async fn standby(&self) -> Self {
        self.standby_on(free_port()).await
    }

    /// The same on a port, such as that of a server before.
    pub async fn standby_on(&self, port: u16) -> Self {
        let dir = tempfile::tempdir_in(env::temp_dir()).unwrap();
        // Not by pg_basebackup, which copies from no newer server than itself.
        let client = self.client("postgres").await;
        let version = "SELECT current_setting('server_version_num')::int";
        let version: i32 = client.query_one(version, &[]).await.unwrap().get(0);
        let (begin, end) = match version {
            150_000.. => ("SELECT pg_backup_start('standby', true)", "SELECT * FROM pg_backup_stop()"),
            _ => (
                "SELECT pg_start_backup('standby', true, false)",
                "SELECT * FROM pg_stop_backup(false, false)",
            ),
        };
        client.simple_query(begin).await.unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(self.dir.path().join("data")).arg(dir.path()).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let label: String = client.query_one(end, &[]).await.unwrap().get(1);
        let data = dir.path().join("data");
        fs::remove_file(data.join("postmaster.pid")).unwrap();
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=tests'\n", self.port);
        for (name, text) in
            [("backup_label", &*label), ("standby.signal", ""), ("postgresql.auto.conf", &primary)]
        {
            fs::write(data.join(name), text).unwrap();
            give(&data.join(name));
        }
        give(dir.path());
        let mut standby = Self { dir, port, settings: self.settings.clone(), keeper: None };
        standby.run();
        self.wait_at_commits_for("*").await;
        let client = self.client("postgres").await;
        let until = Instant::now() + TEST_TIMEOUT;
        let synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
        while client.query(synchronous, &[]).await.unwrap().is_empty() {
            assert!(Instant::now() < until, "the standby does not follow");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        standby
    }

    /// Has each commit wait for standbys of this name; for nobody where it is empty.
    pub async fn wait_at_commits_for(&self, standbys: &str) {
        let client = self.client("postgres").await;
        // Changing it is no commit, so this waits for nobody.
        client
            .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standbys}'"))
            .await
            .unwrap();
        client.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
        // The server reloads in its own time, and commits wait as the checkpointer has
        // it, which reloads before it answers.
        let until = Instant::now() + TEST_TIMEOUT;
        while client.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get::<_, &str>(0)
            != standbys
        {
            assert!(Instant::now() < until, "the server does not reload its settings");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        client.batch_execute("CHECKPOINT").await.unwrap();
    }

    /// Starts the server on its data and its port, and waits until it answers.
    pub fn run(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let keeper = command(Path::new("sh"), self.dir.path())
            .args(["-c", KEEPER, "keeper"])
            .arg(self.dir.path())
            .arg(server("postgres"))
            .args(["-D", "data", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(&self.settings)
            .args(["-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB", "-p"])
            .arg(self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
        let until = Instant::now() + TEST_TIMEOUT;
        let ready = || {
            Command::new(debians("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
        };
        while !ready().unwrap().success() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(Instant::now() < until, "PostgreSQL does not start:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Ends the server with a signal: `INT` cuts sessions, `QUIT` is a crash.
    pub fn stop(&mut self, signal: &str) {
        use std::io::Write;
        let Some(mut keeper) = self.keeper.take() else { return };
        let _ = writeln!(keeper.stdin.take().unwrap(), "{signal}");
        keeper.wait().unwrap();
    }

    /// A database that nobody else uses, and the login of its owner.
    pub async fn fresh(&self) -> Config {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("users{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.client("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        self.config("tests", &name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self, user: &str, name: &str) -> Config {
        at(self.port, user, name)
    }

    /// A connection that is none of the store's.
    pub async fn client(&self, name: &str) -> Client {
        let url = format!("postgres://tests@127.0.0.1:{}/{name}", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stop("QUIT");
    }
}

/// The name of the database that a configuration is about.
pub fn name(config: &Config) -> String {
    match &config.store_url {
        StoreUrl::Postgres(url) => url.server.get_dbname().unwrap().into(),
        _ => panic!("no database"),
    }
}

/// The configuration of a store in this database.
pub fn at(port: u16, user: &str, name: &str) -> Config {
    let url = format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable");
    let store_url = StoreUrl::Postgres(Box::new(PostgresUrl::parse(&url).unwrap()));
    Config { store_url, ..Config::default() }
}
