//! What commands make of the files that people have: devices, pipes, links, other
//! editors' encodings.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use crate::{
    cli::{Cli, Finished},
    support::Server,
};

const ADA: &str = r#"{"id":"ada","name":"Ada","email":"ada@example.com","age":36}"#;
const BOB: &str = r#"{"id":"bob","name":"Bob","email":"bob@example.com","age":37}"#;

fn import(cli: &Cli, server: &Server, file: &str) -> Finished {
    cli.run(&["import", "--server", &server.grpc_addr.to_string(), file])
}

fn export(cli: &Cli, server: &Server, output: &str) -> Finished {
    cli.run(&["export", "--server", &server.grpc_addr.to_string(), "--output", output])
}

/// A server with two users, and a folder.
fn two_users() -> (Server, Cli) {
    let (server, cli) = (Server::start(&[]), Cli::new());
    let input = cli.path().join("input");
    fs::write(&input, format!("{ADA}\n{BOB}\n")).unwrap();
    let imported = import(&cli, &server, "input");
    assert_eq!(imported.code, Some(0), "{}", imported.err);
    fs::remove_file(input).unwrap();
    (server, cli)
}

fn is_whole(file: impl AsRef<Path>) {
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600,
        "it holds people's addresses"
    );
}

fn names(cli: &Cli) -> Vec<String> {
    let entries = fs::read_dir(cli.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_export_replaces_regular_files_and_nothing_else() {
    let (server, cli) = two_users();
    let at = |name: &str| cli.path().join(name);
    let succeeds = |name: &str| {
        let exported = export(&cli, &server, name);
        assert_eq!(exported.code, Some(0), "{name}: {}", exported.err);
    };
    let fails = |name: &str, why: &str| {
        let exported = export(&cli, &server, name);
        assert_eq!(exported.code, Some(1), "{name}: {}", exported.err);
        assert!(exported.err.contains(name) && exported.err.contains(why), "{name}: {}", exported.err);
    };

    succeeds("new");
    is_whole(at("new"));
    fs::write(at("old"), "older, and readable for all\n").unwrap();
    succeeds("old");
    is_whole(at("old"));
    fs::write(at("linked"), "").unwrap();
    symlink("linked", at("link")).unwrap();
    succeeds("link");
    assert!(at("link").is_symlink(), "a link stays one");
    is_whole(at("linked"));

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let pipe = at("pipe");
    let reader = thread::spawn(move || fs::read_to_string(pipe).unwrap());
    succeeds("pipe");
    assert_eq!(reader.join().unwrap().lines().count(), 2);
    assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo(), "a pipe stays one");
    symlink("/dev/null", at("null")).unwrap();
    succeeds("null");
    assert!(fs::metadata(at("null")).unwrap().file_type().is_char_device(), "a device stays one");

    fs::create_dir(at("folder")).unwrap();
    fails("folder", "directory");
    symlink("nothing", at("dangling")).unwrap();
    fails("dangling", "symbolic link");
    symlink("/dev/full", at("full")).unwrap();
    fails("full", "No space");
    let all = ["dangling", "folder", "full", "link", "linked", "new", "null", "old", "pipe"];
    assert_eq!(names(&cli), all, "nothing else is left");
}

#[test]
fn an_export_to_a_device_of_ones_own_leaves_the_device() {
    let (server, cli) = two_users();
    let device = cli.path().join("null");
    if !Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap().success() {
        eprintln!("only root can make a device");
        return;
    }
    let exported = export(&cli, &server, "null");
    // Some sandboxes let nobody open a device that was made within.
    assert!(exported.code == Some(0) || exported.err.contains("denied"), "{}", exported.err);
    assert!(fs::metadata(device).unwrap().file_type().is_char_device());
}

#[test]
fn an_export_to_stdout_by_any_name_adds_to_what_is_there() {
    let (server, cli) = two_users();
    let addr = server.grpc_addr.to_string();
    for args in [&[][..], &["-o", "-"], &["-o", "/dev/stdout"], &["-o", "/dev/fd/1"]] {
        let exported = cli.run(&[&["export", "--server", &addr], args].concat());
        assert_eq!((exported.code, exported.out.lines().count()), (Some(0), 2), "{args:?}: {}", exported.err);
        let path = cli.path().join("out");
        fs::write(&path, "a header\n").unwrap();
        let out = OpenOptions::new().append(true).open(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.args(["export", "--server", &addr]).args(args).current_dir(cli.path());
        assert!(command.stdout(out).status().unwrap().success());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("a header\n") && text.lines().count() == 3, "{args:?}: {text}");
        assert_eq!(names(&cli), ["out"]);
    }
}

#[test]
fn a_report_to_stdout_by_any_name_adds_to_what_is_there() {
    let (server, cli) = (Server::start(&[]), Cli::new());
    fs::write(cli.path().join("input"), "not a user\n").unwrap();
    let path = cli.path().join("out");
    for report in ["/dev/stdout", "/dev/fd/1"] {
        fs::write(&path, "a header\n").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.args(["import", "--server", &server.grpc_addr.to_string(), "input", "--report", report]);
        let out = OpenOptions::new().append(true).open(&path).unwrap();
        let run = command.current_dir(cli.path()).stdout(out).stderr(Stdio::null()).status().unwrap();
        assert_eq!(run.code(), Some(65));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("a header\ninput:1: ") && text.lines().count() == 2, "{report}: {text}");
    }
    // Any other file holds the report of one import alone.
    fs::write(&path, "an earlier report\n").unwrap();
    let args = ["import", "--server", &server.grpc_addr.to_string(), "input", "--report", "out"];
    assert_eq!(cli.run(&args).code, Some(65));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("input:1: ") && text.lines().count() == 1, "{text}");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let (server, cli) = two_users();
    let addr = server.grpc_addr.to_string();
    let program = env!("CARGO_BIN_EXE_user-service");
    for args in [&["export", "--server", &addr][..], &["config"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let run = Command::new(program).args(args).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("No space"), "{args:?}: {said}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = Command::new(program).args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("Broken pipe"), "{args:?}: {said}");
    }
    // A disk that is full after no byte at all.
    let limited = format!("trap '' XFSZ; ulimit -f 0; exec {program} export --server {addr} -o out");
    let run = Command::new("sh").arg("-c").arg(limited).current_dir(cli.path()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(names(&cli).is_empty(), "no file is left that is not whole: {:?}", names(&cli));
}

#[test]
fn a_time_without_an_offset_is_refused() {
    let (server, cli) = (Server::start(&[]), Cli::new());
    let with =
        |id: &str, time: &str| ADA.replace("ada", id).replace('}', &format!(r#","create_time":"{time}"}}"#));
    let lines =
        [with("a", "2020-01-01T01:00:00"), with("b", "2020-01-01"), with("c", "2020-01-01T01:00:00+02:00")];
    fs::write(cli.path().join("input"), lines.join("\n")).unwrap();
    let imported = import(&cli, &server, "input");
    assert_eq!(imported.code, Some(65), "{}", imported.err);
    for line in ["input:1: create_time", "input:2: create_time", "import: 1 created, 0 unchanged, 2 refused"]
    {
        assert!(imported.err.contains(line), "{}", imported.err);
    }
    let exported = cli.run(&["export", "--server", &server.grpc_addr.to_string()]);
    assert!(exported.out.contains("\"2019-12-31T23:00:00Z\""), "{}", exported.out);
}

#[test]
fn marks_line_ends_and_empty_lines_of_other_editors_cost_no_user() {
    let server = Server::start(&[]);
    let mark = "\u{feff}";
    for text in [
        format!("{mark}{ADA}\n{BOB}\n"),
        format!("{mark}{ADA}\r\n{BOB}\r\n"),
        format!("\r\n{ADA}\r\n\r\n  \r\n{BOB}"),
        format!("{mark}\n{ADA}\n{mark}{BOB}"),
    ] {
        let cli = Cli::new();
        fs::write(cli.path().join("input"), &text).unwrap();
        let imported = import(&cli, &server, "input");
        assert_eq!(imported.code, Some(0), "{text:?}: {}", imported.err);
        assert!(imported.err.contains(" 0 refused"), "{text:?}: {}", imported.err);
        let mut stdin = Command::new(env!("CARGO_BIN_EXE_user-service"));
        stdin.args(["import", "--server", &server.grpc_addr.to_string()]);
        let run = stdin.stdin(File::open(cli.path().join("input")).unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("import: 0 created, 2 unchanged, 0 refused"), "{text:?}: {said}");
    }
    for (bytes, name) in [(text_16(u16::to_le_bytes), "little"), (text_16(u16::to_be_bytes), "big")] {
        let cli = Cli::new();
        fs::write(cli.path().join(name), bytes).unwrap();
        let refused = import(&cli, &server, name);
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert!(refused.err.contains(&format!("{name} is UTF-16")), "{}", refused.err);
    }
}

#[test]
fn a_configuration_file_may_have_a_mark_and_other_line_ends() {
    let cli = Cli::new();
    let good = "\u{feff}store_queue = 7\r\n\r\ncall_log = false";
    fs::write(cli.path().join("users.toml"), good).unwrap();
    let shown = cli.run(&["config", "--config", "users.toml"]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for line in
        ["store_queue = 7 # file \"users.toml\", line 1", "call_log = false # file \"users.toml\", line 3"]
    {
        assert!(shown.out.contains(line), "{}", shown.out);
    }
    fs::write(cli.path().join("users.toml"), text_16(u16::to_le_bytes)).unwrap();
    let refused = cli.run(&["config", "--config", "users.toml"]);
    assert_eq!(refused.code, Some(64), "{}", refused.err);
    assert!(refused.err.contains("is not UTF-8"), "{}", refused.err);
}

/// A text in UTF-16, with its mark.
fn text_16(bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{ADA}\n").encode_utf16().flat_map(bytes).collect()
}
