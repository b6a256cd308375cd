//! A `PgBouncer` in front of the database that tests share: any transaction may
//! come to any of its few connections.

use std::{
    env, fs,
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use user_service::config::Config;

use crate::{
    database::{self, KEEPER, command, name},
    support::{TEST_TIMEOUT, free_port},
};

pub struct Bouncer {
    pub port: u16,
    _dir: TempDir,
    _keeper: Child,
}

pub fn shared() -> &'static Bouncer {
    static SHARED: OnceLock<Bouncer> = OnceLock::new();
    SHARED.get_or_init(|| Bouncer::start(database::shared().port, "transaction"))
}

impl Bouncer {
    pub fn start(database: u16, pool_mode: &str) -> Self {
        let dir = tempfile::tempdir_in(env::temp_dir()).unwrap();
        let port = free_port();
        let settings = format!(
            "[databases]
             * = host=127.0.0.1 port={database} user=tests
             [pgbouncer]
             listen_addr = 127.0.0.1
             listen_port = {port}
             unix_socket_dir =
             auth_type = any
             pool_mode = {pool_mode}
             default_pool_size = 3
             max_client_conn = 500"
        );
        let settings: Vec<_> = settings.lines().map(str::trim).collect();
        fs::write(dir.path().join("pgbouncer.ini"), settings.join("\n")).unwrap();
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let keeper = command(Path::new("sh"), dir.path())
            .args(["-c", KEEPER, "keeper"])
            .arg(dir.path())
            .args([program.expect("tools/packages.sh installs it"), "--quiet", "pgbouncer.ini"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + TEST_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(dir.path().join("log")).unwrap();
            assert!(Instant::now() < until, "PgBouncer does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, _dir: dir, _keeper: keeper }
    }

    /// A database that nobody else uses, as it is reached from here.
    pub async fn fresh(&self) -> Config {
        let direct = database::shared().fresh().await;
        database::at(self.port, "tests", &name(&direct))
    }
}
