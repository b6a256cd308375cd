//! `export` and `import`: users moved from one store to another, whatever breaks
//! meanwhile.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::task::block_in_place;
use tonic::transport::Channel;
use user_service::proto::user::v1::{GetUserRequest, User, get_user_request::Key};

use crate::{
    imports::{Client, all_users, fresh_postgres, serve},
    support::{Server, TEST_TIMEOUT, revision},
};

fn command(args: &[&str], addr: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(args).args(["--server", &addr.to_string()]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end; returns its code, and what it said on stderr.
fn run(args: &[&str], addr: SocketAddr) -> (Option<i32>, String) {
    finished(block_in_place(|| command(args, addr).output().unwrap()))
}

fn finished(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A line for each user: every second with an id, all with a create time.
fn lines(users: usize) -> String {
    let mut lines = String::new();
    for number in 0..users {
        if number % 2 == 0 {
            write!(lines, r#"{{"id":"user-{number}","#).unwrap();
        } else {
            lines.push('{');
        }
        let time = format!("20{:02}-03-04T05:06:07.{:06}Z", number % 25, number % 1_000_000);
        writeln!(
            lines,
            r#""name":"Ada \u00fc {number}","email":"user-{number}@example.com","age":{},"create_time":"{time}"}}"#,
            number % 151
        )
        .unwrap();
    }
    lines
}

fn sqlite(dir: &Path) -> String {
    format!("sqlite:{}/users.db", dir.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_moved_to_another_store_and_back_are_the_same() {
    const USERS: usize = 2_500;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    fs::write(file("first"), lines(USERS)).unwrap();
    let (original, mut client) = serve(&format!("sqlite:{}", file("1.db"))).await;
    let (code, said) = run(&["import", &file("first")], original.grpc_addr);
    assert_eq!((code, said.as_str()), (Some(0), "import: 2500 created, 0 unchanged, 0 refused\n"));
    assert_eq!(all_users(&mut client).await.len(), USERS);
    let mut before = original.grpc_addr;
    let mut servers = vec![original];
    for (store, export) in
        [(fresh_postgres().await, "exported-1"), (format!("sqlite:{}", file("2.db")), "exported-2")]
    {
        let (code, said) = run(&["export", "-o", &file(export)], before);
        assert_eq!((code, said.as_str()), (Some(0), "export: 2500 users\n"));
        let mode = fs::metadata(file(export)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "people's addresses are nobody else's");
        let (server, _) = serve(&store).await;
        // As a pipe, too.
        let mut import = command(&["import"], server.grpc_addr);
        import.stdin(fs::File::open(file(export)).unwrap());
        let (code, said) = finished(block_in_place(|| import.output().unwrap()));
        assert_eq!((code, said.as_str()), (Some(0), "import: 2500 created, 0 unchanged, 0 refused\n"));
        before = server.grpc_addr;
        servers.push(server);
    }
    let last = block_in_place(|| command(&["export"], before).output().unwrap());
    let exported = fs::read(file("exported-1")).unwrap();
    assert_eq!(exported.split(|byte| *byte == b'\n').count(), USERS + 1);
    assert!(exported == fs::read(file("exported-2")).unwrap() && exported == last.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_refused_are_reported_and_the_others_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = serve("memory:").await;
    let (input, report) = (dir.path().join("users.jsonl"), dir.path().join("report"));
    let ada = r#"{"id":"ada","name":"Ada","email":"ada@example.com","age":36}"#;
    let long = format!(r#"{{"name":"{}","email":"long@example.com","age":1}}"#, "x".repeat(20_000));
    let bad = [
        ada,
        "",
        ada,
        r#"{"id":"ada","name":"Ada","email":"ada@example.com","age":37}"#,
        r#"{"id":"bob","name":"Bob","email":"ada@example.com","age":37}"#,
        r#"{"name":" ","email":"nobody","age":200}"#,
        "nobody@example.com",
        &long,
        r#"{"name":"Eve","email":"eve@example.com","age":1}"#,
        // Cut short.
        r#"{"name":"Zoe","email":"zoe@exam"#,
    ];
    fs::write(&input, bad.join("\n")).unwrap();
    let (name, reported) = (input.display().to_string(), report.display().to_string());
    let (code, said) = run(&["import", &name, "--report", &reported], server.grpc_addr);
    assert_eq!((code, said.as_str()), (Some(65), "import: 2 created, 1 unchanged, 6 refused\n"));
    let reported = fs::read_to_string(report).unwrap();
    let mut lines: Vec<_> =
        reported.lines().map(|line| line.strip_prefix(&format!("{name}:")).unwrap()).collect();
    // What the server refuses is known later than what is no user at all.
    lines.sort_unstable();
    let starts = [
        "10: the JSON is cut short",
        "4: AlreadyExists: ",
        "5: AlreadyExists: ",
        "6: InvalidArgument: the request is invalid: user.name must not be empty; user.email",
        "7: not JSON",
        "8: the line has more than 16384 bytes",
    ];
    assert_eq!(lines.len(), starts.len());
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        assert!(!line.contains("example.com") && !line.contains("nobody"), "{line}");
    }
    assert_eq!(all_users(&mut client).await.len(), 2);

    let (code, said) = run(&["import", &name], server.grpc_addr);
    assert_eq!(code, Some(65));
    assert!(said.contains(&format!("{name}:7: not JSON")), "{said}");
    assert!(said.ends_with("import: 0 created, 3 unchanged, 6 refused\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_says_so_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = serve("memory:").await;
    let addr = server.grpc_addr;
    assert_eq!(run(&["import", "no-such-file"], addr).0, Some(1));
    assert_eq!(run(&["export", "-o", "/no/such/directory/users"], addr).0, Some(1));
    drop(server);
    let (input, output) = (dir.path().join("in"), dir.path().join("out"));
    fs::write(&input, lines(1)).unwrap();
    let retry_timeout = ["--retry-timeout-ms", "300"];
    let (code, said) = run(&[&["import", input.to_str().unwrap()], &retry_timeout[..]].concat(), addr);
    assert_eq!(code, Some(1));
    assert!(said.contains("gave up after 300 ms without progress"), "{said}");
    let (code, said) = run(&[&["export", "-o", output.to_str().unwrap()], &retry_timeout[..]].concat(), addr);
    assert_eq!(code, Some(1));
    assert!(said.contains("gave up after 300 ms without progress"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no file is left that is not whole");
}

async fn has(client: &mut Client, number: usize) -> bool {
    let key = Key::Email(format!("user-{number}@example.com"));
    client.get_user(GetUserRequest { key: Some(key) }).await.is_ok()
}

/// Until an import has come so far; it may be slow, but goes on.
async fn until_there(client: &mut Client, number: usize) {
    let (mut step, mut end) = (0, Instant::now() + TEST_TIMEOUT);
    while !has(client, number).await {
        if has(client, step).await {
            (step, end) = (step + 250, Instant::now() + TEST_TIMEOUT);
        }
        assert!(Instant::now() < end, "user {step} does not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn each_once(users: &[User], count: usize) {
    assert_eq!(users.len(), count);
    // Each was written once, so no other revision was ever spent.
    let revisions: HashSet<_> = users.iter().map(revision).collect();
    assert_eq!(revisions, (1..=count as u64).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_sqlite_cut_at_either_end_stores_each_user_once() {
    let dir = tempfile::tempdir().unwrap();
    cut_at_either_end(&sqlite(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_postgres_cut_at_either_end_stores_each_user_once() {
    cut_at_either_end(&fresh_postgres().await).await;
}

async fn cut_at_either_end(store: &str) {
    const USERS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("users.jsonl");
    fs::write(&input, lines(USERS)).unwrap();
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() as usize;
    let (first, second) = (chance % 3_000, 4_000 + chance / 7 % 4_000);
    println!("cut at {first} and {second}");
    let (server, mut client) = serve(store).await;
    let addr = server.grpc_addr;
    let args = ["import", input.to_str().unwrap()];

    let mut importing = command(&args, addr).spawn().unwrap();
    until_there(&mut client, first).await;
    importing.kill().unwrap();
    importing.wait().unwrap();

    let mut importing = command(&args, addr).spawn().unwrap();
    until_there(&mut client, second).await;
    server.signal("KILL");
    drop(server);
    let over = importing.try_wait().unwrap().is_some();
    assert!(!over, "it was over before the cut: {:?}", wait(importing));
    let (_server, mut client) = again(store, addr).await;
    let (code, said) = wait(importing);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" 0 refused"), "{said}");
    each_once(&all_users(&mut client).await, USERS);
}

#[test]
fn a_command_that_is_told_to_end_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = dir.path().join("users.jsonl");
    fs::write(&output, "an older one").unwrap();
    let left = || fs::read_dir(dir.path()).unwrap().count();
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let args = ["export", "--output", output.to_str().unwrap()];
        let mut exporting = command(&args, silent.local_addr().unwrap()).spawn().unwrap();
        let until = Instant::now() + TEST_TIMEOUT;
        while left() < 2 {
            assert!(Instant::now() < until, "it has begun");
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = Command::new("kill").args([signal, &exporting.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(exporting.wait().unwrap().code(), Some(code));
        assert_eq!((left(), fs::read(&output).unwrap().as_slice()), (1, &b"an older one"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_not_overwritten_by_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("users.jsonl");
    fs::write(&input, lines(3)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&input, &link).unwrap();
    let (server, mut client) = serve("memory:").await;
    for report in [&input, &link] {
        let args = ["import", input.to_str().unwrap(), "--report", report.to_str().unwrap()];
        let (code, said) = run(&args, server.grpc_addr);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("give the report another name"), "{said}");
    }
    for files in [&[][..], &["-"]] {
        let args = [&["import"], files, &["--report", input.to_str().unwrap()]].concat();
        let mut importing = command(&args, server.grpc_addr);
        let (code, said) =
            finished(block_in_place(|| importing.stdin(File::open(&input).unwrap()).output().unwrap()));
        assert!(code == Some(1) && said.contains("give the report another name"), "{said}");
    }
    assert_eq!(fs::read_to_string(&input).unwrap(), lines(3));
    // And - is stdin.
    let mut importing = command(&["import", "-"], server.grpc_addr).stdin(Stdio::piped()).spawn().unwrap();
    importing.stdin.take().unwrap().write_all(lines(3).as_bytes()).unwrap();
    let (code, said) = finished(block_in_place(|| importing.wait_with_output().unwrap()));
    assert_eq!(code, Some(0), "{said}");
    each_once(&all_users(&mut client).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_when_its_server_is_back_and_has_each_user_once() {
    const USERS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let (input, store) = (dir.path().join("users.jsonl"), sqlite(dir.path()));
    fs::write(&input, lines(USERS)).unwrap();
    let (server, _) = serve(&store).await;
    let addr = server.grpc_addr;
    assert_eq!(run(&["import", input.to_str().unwrap()], addr).0, Some(0));

    let mut exporting = command(&["export"], addr).spawn().unwrap();
    let mut out = BufReader::new(exporting.stdout.take().unwrap());
    let mut exported = String::new();
    // It has begun, and cannot end while nobody reads on.
    block_in_place(|| out.read_line(&mut exported)).unwrap();
    server.signal("KILL");
    drop(server);
    let (_server, _) = again(&store, addr).await;
    block_in_place(|| out.read_to_string(&mut exported)).unwrap();
    assert_eq!(wait(exporting), (Some(0), "export: 20000 users\n".into()));
    let addresses: HashSet<_> = exported.lines().map(|line| line.split('"').nth(11).unwrap()).collect();
    assert_eq!((exported.lines().count(), addresses.len()), (USERS, USERS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_how_far_an_import_is() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("users.jsonl");
    fs::write(&input, lines(2_000)).unwrap();
    let (server, _) = serve("memory:").await;
    let program = env!("CARGO_BIN_EXE_user-service");
    let line = format!("{program} import --server {} {}", server.grpc_addr, input.display());
    // script(1) runs a command on a terminal of its own.
    let script =
        || Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]).output();
    let output = block_in_place(script).unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("% ") && shown.contains(" left"), "no bar in {shown:?}");
    assert!(shown.ends_with("import: 2000 created, 0 unchanged, 0 refused\r\n"), "{shown:?}");
}

fn wait(importing: Child) -> (Option<i32>, String) {
    finished(block_in_place(|| importing.wait_with_output().unwrap()))
}

/// A server where there was one before.
async fn again(store: &str, addr: SocketAddr) -> (Server, Client) {
    let server = block_in_place(|| Server::start(&["--store-url", store, "--grpc-addr", &addr.to_string()]));
    let channel = Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
    (server, Client::new(channel))
}
