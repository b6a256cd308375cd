//! The command line and the configuration: what is printed, and how it ends.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// What a command said, and how it ended.
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command in a directory of its own, with nothing of this environment.
pub struct Cli {
    dir: TempDir,
}

impl Cli {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn run(&self, args: &[&str]) -> Finished {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(self.path())
            .stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
        Finished { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}

#[test]
fn help_and_version_are_printed() {
    let cli = Cli::new();
    let help = cli.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for part in [
        "serve",
        "check",
        "smoke",
        "export",
        "import",
        "migrate",
        "purge",
        "backup",
        "restore",
        "--drain-timeout-ms <MS>",
        "[default: 20000]",
        "USERSVC_CONFIG",
    ] {
        assert!(help.out.contains(part), "no {part:?} in:\n{}", help.out);
    }
    let version = cli.run(&["--version"]);
    assert_eq!(
        (version.code, version.out),
        (Some(0), format!("user-service {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn wrong_usage_ends_with_64_and_a_hint() {
    let cli = Cli::new();
    for args in [&["--store-ulr", "memory:"][..], &["server"], &["config", "x"], &["smoke"], &["--grpc-addr"]]
    {
        let refused = cli.run(args);
        assert_eq!(refused.code, Some(64), "{args:?}: {}", refused.err);
        assert!(refused.err.starts_with("error: ") && refused.out.is_empty(), "{args:?}: {}", refused.err);
    }
    assert!(cli.run(&["--store-ulr", "memory:"]).err.contains("'--store-url'"));
}

#[test]
fn a_wrong_configuration_ends_with_64_and_every_error() {
    let cli = Cli::new();
    fs::write(cli.path().join("users.toml"), "call_log = true\nstore = \"memory:\"\n").unwrap();
    let args = ["--config", "users.toml", "--store-queue", "0"];
    for command in [&[][..], &["serve"], &["migrate"], &["purge"], &["config"]] {
        let args = [command, &args].concat();
        let refused =
            cli.run_with(&args, &[("USERSVC_GRPC_ADR", "127.0.0.1:0"), ("USERSVC_CALL_LOG", "yes")]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(64), ""), "{args:?}: {}", refused.err);
        let expected = [
            "4 errors",
            "file \"users.toml\", line 2: there is no setting \"store\"",
            "environment USERSVC_CALL_LOG: call_log must be true or false, not \"yes\"",
            "environment USERSVC_GRPC_ADR: there is no setting \"USERSVC_GRPC_ADR\"; did you mean USERSVC_GRPC_ADDR?",
            "flag --store-queue: store_queue must be a whole number from 1 to 1048576, not \"0\"",
        ];
        for part in expected {
            assert!(refused.err.contains(part), "{args:?}: no {part:?} in:\n{}", refused.err);
        }
    }
}

#[test]
fn variables_that_kubernetes_sets_are_not_settings() {
    let links = [("USER_SERVICE_SERVICE_HOST", "10.0.0.1"), ("USER_SERVICE_PORT", "tcp://10.0.0.1:50051")];
    let config = Cli::new().run_with(&["config"], &links);
    assert_eq!(config.code, Some(0), "{}", config.err);
}

#[test]
fn config_shows_where_each_value_is_from_and_is_a_file_itself() {
    let cli = Cli::new();
    fs::write(cli.path().join("users.toml"), "# ours\nstore_url = \"sqlite:u.db\"\nstore_queue = 1\n")
        .unwrap();
    let env = [("USERSVC_CONFIG", "users.toml"), ("USERSVC_STORE_QUEUE", "2"), ("USERSVC_CALL_LOG", "true")];
    let shown = cli.run_with(&["config", "--call-log", "false"], &env);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for line in [
        "store_url = \"sqlite:u.db\" # file \"users.toml\", line 2",
        "store_queue = 2 # environment USERSVC_STORE_QUEUE",
        "call_log = false # flag --call-log",
        "drain_timeout_ms = 20000 # default",
    ] {
        assert!(shown.out.lines().any(|shown| shown == line), "no {line:?} in:\n{}", shown.out);
    }

    fs::write(cli.path().join("shown.toml"), &shown.out).unwrap();
    let again = cli.run(&["config", "--config", "shown.toml"]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(&again.out), values(&shown.out), "{}", again.err);
}

#[test]
fn a_flag_given_twice_takes_its_last_value() {
    let cli = Cli::new();
    let shown = cli.run(&["config", "--store-queue", "1", "--store-queue", "2"]);
    assert!(shown.out.contains("store_queue = 2 # flag --store-queue"), "{}{}", shown.out, shown.err);
}

#[test]
fn a_port_in_use_is_named_and_ends_with_1() {
    let cli = Cli::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--grpc-addr", "--admin-addr"), ("--admin-addr", "--grpc-addr")] {
        let failed = cli.run(&["--store-url", "memory:", flag, &addr, other, "127.0.0.1:0"]);
        assert_eq!(failed.code, Some(1), "{flag}: {}", failed.err);
        assert!(failed.err.contains(&addr), "{flag}: {addr} is not named in:\n{}", failed.err);
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_named_and_ends_with_1() {
    let cli = Cli::new();
    fs::write(cli.path().join("not-a-store.db"), "a text, and no database".repeat(100)).unwrap();
    for path in ["no/such/directory/users.db", "not-a-store.db"] {
        let url = format!("sqlite:{path}");
        let ports = ["--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
        for args in
            [[&["serve", "--store-url", &url][..], &ports].concat(), vec!["migrate", "--store-url", &url]]
        {
            let failed = cli.run(&args);
            assert_eq!(failed.code, Some(1), "{args:?}: {}", failed.err);
            assert!(failed.err.contains(path), "{args:?}: {path} is not named in:\n{}", failed.err);
        }
    }
}

#[test]
fn migrate_makes_a_store_and_may_be_repeated() {
    let cli = Cli::new();
    for _ in 0..2 {
        let done = cli.run(&["migrate", "--store-url", "sqlite:users.db"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert!(cli.path().join("users.db").exists());
    }
}
