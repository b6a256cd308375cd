//! What may hold a password is shown nowhere, whatever form it comes in.

use std::{fs, thread};

use crate::cli::Cli;

const SECRET: &str = "S3cret";

/// Connection strings that this service does not take, each with a password in it.
const CONNECTION_STRINGS: [&str; 14] = [
    "host=db-1 user=users password=S3cret dbname=accounts",
    "postgres:host=db-1 password=S3cret",
    "postgres://users:S3cret@db:port/accounts",
    "postgres://users:S3cret@db/accounts?sslmode=maybe",
    "postgres://users@db/accounts?password=S3cret",
    "postgres://users@db/accounts?p%61ssword=S3cret",
    "postgres://users:x@S3cret@db/accounts?frobnicate=1",
    "postgres://S3cret",
    "mysql://users:S3cret@db/accounts",
    "users:S3cret@db/accounts",
    "users:S3cret@tcp(db:5432)/accounts",
    "jdbc:postgresql://db/accounts?user=users&password=S3cret",
    "Server=db;User Id=users;Password=S3cret",
    "S3cret",
];

#[test]
fn a_connection_string_that_is_not_understood_is_shown_nowhere() {
    let cli = Cli::new();
    let file = cli.path().join("users.toml");
    for url in CONNECTION_STRINGS {
        fs::write(&file, format!("store_url = '{url}'\n")).unwrap();
        for command in ["config", "serve", "migrate", "purge"] {
            for refused in [
                cli.run(&[command, "--store-url", url]),
                cli.run_with(&[command], &[("USERSVC_STORE_URL", url)]),
                cli.run(&[command, "--config", "users.toml"]),
            ] {
                let said = refused.out + &refused.err;
                assert_eq!(refused.code, Some(64), "{command} {url}: {said}");
                assert!(said.contains("store_url"), "{command} {url}: {said}");
                assert!(!said.contains(SECRET), "{command} {url}: {said}");
            }
        }
    }
}

#[test]
fn a_connection_string_in_the_wrong_place_is_shown_nowhere() {
    let cli = Cli::new();
    for url in CONNECTION_STRINGS.into_iter().filter(|url| *url != SECRET) {
        let joined = format!("--store-ulr={url}");
        let words = url.split(' ');
        let mut unquoted = vec!["config", "--store-url"];
        unquoted.extend(words);
        let without_command = unquoted[1..].to_vec();
        let cases = [
            vec![url],
            vec!["config", url],
            vec!["serve", "--store-url", "memory:", url],
            vec![&joined],
            vec!["--store-ulr", url],
            vec!["config", "--grpc-addr", url],
            vec!["config", "--store-queue", url],
            vec!["config", "--log-format", url],
            vec!["check", url],
            vec!["smoke", url],
            vec!["export", "--server", url],
            vec!["import", "--retry-timeout-ms", url],
            unquoted,
            without_command,
        ];
        for args in cases {
            let refused = cli.run(&args);
            let said = refused.out + &refused.err;
            assert!(matches!(refused.code, Some(1 | 64)), "{args:?}: {:?} {said}", refused.code);
            assert!(!said.contains(SECRET), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_file_that_is_not_understood_is_not_shown() {
    let cli = Cli::new();
    for text in [
        "store_url = host=db-1 password=S3cret\n",
        "store_url = \"postgres://users:S3cret@db/accounts\n",
        "store_url = \"postgres://users:S3cret@db\\q\"\n",
        "store_url = { password = \"S3cret\" }\n",
        "store_url = [\"S3cret\"]\n",
        "postgres://users:S3cret@db/accounts\n",
        "\"postgres://users:S3cret@db/accounts\" = 1\n",
        "store_password = \"S3cret\"\n",
        "[store]\nurl = \"postgres://users:S3cret@db/accounts\"\n",
        "store_url = \"memory:\"\nstore_url = \"postgres://users:S3cret@db/accounts\"\n",
    ] {
        fs::write(cli.path().join("users.toml"), text).unwrap();
        let refused = cli.run(&["config", "--config", "users.toml"]);
        let said = refused.out + &refused.err;
        assert_eq!(refused.code, Some(64), "{text}: {said}");
        assert!(said.contains("users.toml") && !said.contains(SECRET), "{text}: {said}");
    }
}

#[test]
fn a_password_that_is_understood_is_shown_neither_as_configuration_nor_at_the_start() {
    let cli = Cli::new();
    // Nothing listens on port 1.
    let url = "postgres://users:S3cret@127.0.0.1:1/accounts?connect_timeout=1";
    let shown = cli.run(&["config", "--store-url", url]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.contains("postgres://users@127.0.0.1:1/accounts"), "{}", shown.out);
    assert!(!shown.out.contains(SECRET), "{}", shown.out);
    let ports = ["--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--log-filter", "trace"];
    // Each tries for a while, so they try concurrently.
    thread::scope(|threads| {
        for command in ["serve", "migrate", "purge"] {
            let (cli, ports) = (&cli, &ports);
            threads.spawn(move || {
                let failed = cli.run(&[&[command, "--store-url", url][..], ports].concat());
                let said = failed.out + &failed.err;
                assert_eq!(failed.code, Some(1), "{command}: {said}");
                assert!(said.contains("127.0.0.1") && !said.contains(SECRET), "{command}: {said}");
            });
        }
    });
}

#[test]
fn credentials_of_a_collector_are_shown_nowhere() {
    let cli = Cli::new();
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
        for url in [
            "https://me:S3cret@collector:4318",
            "http://me:S3cret@collector:4318",
            "me:S3cret@collector",
            "S3cret",
        ] {
            let refused = cli.run_with(&["--store-url", "memory:"], &[(name, url)]);
            assert_eq!(refused.code, Some(64), "{url}: {}", refused.err);
            assert!(refused.err.contains(name) && !refused.err.contains(SECRET), "{url}: {}", refused.err);
        }
    }
}
