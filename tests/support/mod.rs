//! Runs the built binary the way a user does: a process of its own, on free
//! ports, stopped by its process id.

#![allow(dead_code, reason = "each tier uses its own part")]

pub mod certificates;
pub mod database;
pub mod documented;
pub mod grpc_client;
pub mod http;
pub mod web_client;

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use user_service::proto::user::v1::User;

/// The ports of servers that have to be told one. The kernel gives none of these to a socket
/// that asks for any port, so a port stays free until its server listens.
const PORTS: Range<u16> = 20_000..30_000;

/// A port where nobody listens.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// How long anything may take before a test says that it hangs.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// No line of the log is read while this is locked.
    pub reading: Arc<Mutex<()>>,
    pub grpc_addr: SocketAddr,
    pub admin_addr: SocketAddr,
}

impl Server {
    /// Starts a server on free ports, with a store in memory unless `args` name
    /// another, and returns once it serves.
    pub fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.args(["--store-url", "memory:"]).args(args);
        Self::spawn(command)
    }

    /// The same with flags that were put together.
    pub fn start_with(args: &[String]) -> Self {
        Self::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same from a command of one's own (a wrapper such as strace, say); the
    /// ports are set by the environment.
    pub fn spawn(mut command: Command) -> Self {
        command
            .env("USERSVC_GRPC_ADDR", "127.0.0.1:0")
            .env("USERSVC_ADMIN_ADDR", "127.0.0.1:0")
            .env("USERSVC_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (send, lines) = mpsc::channel();
        let reading = Arc::new(Mutex::new(()));
        let may_read = Arc::clone(&reading);
        // Reads to the end whether or not anybody listens.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                drop(may_read.lock());
                drop(send.send(line));
            }
        });
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server =
            Self { child, lines, seen: Vec::new(), reading, grpc_addr: unset, admin_addr: unset };
        let listening = server.wait_for_line("\"listening\"");
        server.grpc_addr = addr(&listening, "grpc_addr");
        server.admin_addr = addr(&listening, "admin_addr");
        server.wait_for_line("\"serving\"");
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line of the log, from here on, that holds `text`.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let until = Instant::now() + TEST_TIMEOUT;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{error}: no line with {text} in the log:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Everything logged so far.
    pub fn log(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill -s {name} failed");
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < until, "the server does not end:\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the server to stop (SIGTERM) and returns how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The revision that a user's etag is made of, with the time of the last write and the fields.
pub fn revision(user: &User) -> u64 {
    let etag = u64::from_str_radix(user.etag.trim_matches('"'), 16).expect("an etag is a number");
    let time = user.update_time.expect("every user has one");
    let micros = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
    let age = u8::try_from(user.age).expect("an age is small");
    // As `Hash` has it: a text ends with a byte that is in none.
    let parts = [user.name.as_bytes(), &[0xff], user.email.as_bytes(), &[0xff], &[age]];
    let words = parts.iter().flat_map(|part| part.chunks(8)).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let rest = words.fold(micros.cast_unsigned(), |rest, word| mixed(rest ^ word));
    unmixed(etag) ^ mixed(rest)
}

/// The last step of `SplitMix64`, and back: the factors are inverses of each other.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn unmixed(number: u64) -> u64 {
    let number = (number ^ (number >> 31) ^ (number >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    let number = (number ^ (number >> 27) ^ (number >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    number ^ (number >> 30) ^ (number >> 60)
}

/// The value of a field of a JSON log line that holds an address.
fn addr(line: &str, field: &str) -> SocketAddr {
    let start = line.find(&format!("\"{field}\":\"")).unwrap_or_else(|| panic!("no {field} in {line}"))
        + field.len()
        + 4;
    let len = line[start..].find('"').expect("the string ends");
    line[start..start + len].parse().unwrap_or_else(|e| panic!("{field} in {line}: {e}"))
}
