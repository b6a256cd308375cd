//! What a user may expect of configuration.

use std::{ffi::OsString, io::Write, time::Duration};

use tempfile::NamedTempFile;

use super::{Inputs, Loaded, SETTINGS, Source, StoreUrl, load::FILE_VARIABLE};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn refused(inputs: Inputs) -> String {
    inputs.load().expect_err("this is a bad configuration").to_string()
}

#[test]
fn nothing_set_means_defaults() {
    let loaded = Inputs { env: env(&[("PATH", "/bin")]), ..Inputs::default() }.load().unwrap();
    assert!(SETTINGS.iter().all(|key| (key.show)(&loaded.config) == key.default()));
    assert!(loaded.to_toml().lines().all(|line| line.ends_with("# default")));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = file("drain_timeout_ms = 1\nstore_queue = 1\nmax_unary_calls = 0x10\ncall_log = false\n");
    let loaded = Inputs {
        file: Some(file.path().into()),
        env: env(&[("USERSVC_DRAIN_TIMEOUT_MS", "2"), ("USERSVC_STORE_QUEUE", "2")]),
        flags: vec![("drain_timeout_ms", "3".into())],
    }
    .load()
    .unwrap();

    let Loaded { config, .. } = &loaded;
    assert_eq!(config.drain_timeout, Duration::from_millis(3));
    assert_eq!((config.store_queue, config.max_unary_calls, config.call_log), (2, 16, false));
    assert_eq!(*loaded.source("drain_timeout_ms"), Source::Flag("drain-timeout-ms".into()));
    assert_eq!(*loaded.source("store_queue"), Source::Environment("USERSVC_STORE_QUEUE".into()));
    assert_eq!(*loaded.source("max_unary_calls"), Source::File { path: file.path().into(), line: Some(3) });
    assert_eq!(*loaded.source("log_filter"), Source::Default);
}

#[test]
fn the_environment_names_the_file_unless_a_flag_does() {
    let (one, two) = (file("store_queue = 1"), file("store_queue = 2"));
    let variables = [(OsString::from(FILE_VARIABLE), OsString::from(one.path()))];
    let by_env = Inputs { env: variables.to_vec(), ..Inputs::default() };
    let by_flag = Inputs { file: Some(two.path().into()), env: variables.to_vec(), flags: Vec::new() };
    assert_eq!(by_env.load().unwrap().config.store_queue, 1);
    assert_eq!(by_flag.load().unwrap().config.store_queue, 2);
}

#[test]
fn every_error_is_told_at_once_with_its_source() {
    let file = file("grpc_adr = \"x\"\nstore_queue = \"5\"\nmax_request_bytes = 1.5\n[server]\nport = 1\n");
    let message = refused(Inputs {
        file: Some(file.path().into()),
        env: env(&[("USERSVC_LOG_FORMT", "json"), ("USERSVC_LOG_FORMAT", "xml")]),
        flags: vec![("max_connections", "-1".into()), ("log_filter", "user_service=loud".into())],
    });
    let expected = [
        "has 8 errors",
        "line 1: there is no setting \"grpc_adr\"; did you mean grpc_addr?",
        "line 2: store_queue must be a whole number from 1 to 1048576, not \"5\"",
        "line 3: max_request_bytes must be a whole number from 1024 to 67108864, not something of type float",
        "line 4: there is no setting \"server\"",
        "environment USERSVC_LOG_FORMT: there is no setting \"USERSVC_LOG_FORMT\"; did you mean USERSVC_LOG_FORMAT?",
        "environment USERSVC_LOG_FORMAT: log_format must be auto, json or text, not \"xml\"",
        "flag --max-connections: max_connections must be a whole number from 0 to",
        "flag --log-filter: log_filter is not a filter",
    ];
    for part in expected {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

#[test]
fn a_bad_value_is_refused_even_where_another_source_wins() {
    let inputs = Inputs {
        env: env(&[("USERSVC_STORE_QUEUE", "many")]),
        flags: vec![("store_queue", "1".into())],
        ..Inputs::default()
    };
    assert!(refused(inputs).contains("USERSVC_STORE_QUEUE"));
}

#[test]
fn writes_leave_room_for_reads_also_where_only_the_number_of_calls_is_set() {
    let loaded = |calls: &str| {
        let flags = vec![("max_unary_calls", calls.into())];
        Inputs { flags, ..Inputs::default() }.load().unwrap().config.store_queue
    };
    assert_eq!(["1", "16", "2048", "100000"].map(loaded), [1, 8, 1_024, 1_024]);
    let flags = |queue: &str| vec![("max_unary_calls", "16".into()), ("store_queue", queue.into())];
    let most = Inputs { flags: flags("15"), ..Inputs::default() };
    assert_eq!(most.load().unwrap().config.store_queue, 15);
    let one = vec![("max_unary_calls", "1".into()), ("store_queue", "1".into())];
    assert!(Inputs { flags: one, ..Inputs::default() }.load().is_ok(), "as `config` prints it");
    let message = refused(Inputs { flags: flags("16"), ..Inputs::default() });
    assert!(
        message.contains("store_queue (flag --store-queue) must be less than max_unary_calls"),
        "{message}"
    );
}

#[test]
fn a_variable_in_lower_case_sets_nothing_and_is_refused() {
    let both = [("USERSVC_DRAIN_TIMEOUT_MS", "5"), ("USERSVC_drain_timeout_ms", "6")];
    let message = refused(Inputs { env: env(&both), ..Inputs::default() });
    let said = "\"USERSVC_drain_timeout_ms\"; did you mean USERSVC_DRAIN_TIMEOUT_MS?";
    assert!(message.contains(said) && message.contains("has an error"), "{message}");
}

#[test]
fn a_leeway_of_a_part_of_a_second_is_refused() {
    let message = refused(Inputs { flags: vec![("auth_leeway_ms", "1500".into())], ..Inputs::default() });
    assert!(message.contains("auth_leeway_ms (flag --auth-leeway-ms) must be whole seconds"), "{message}");
}

#[test]
fn settings_that_cannot_both_hold_are_refused() {
    let flags = |flags: &[(&'static str, &str)]| {
        let flags = flags.iter().map(|(name, value)| (*name, (*value).into())).collect();
        Inputs { flags, ..Inputs::default() }
    };
    let message = refused(flags(&[
        ("grpc_addr", "127.0.0.1:5000"),
        ("admin_addr", "0.0.0.0:5000"),
        ("default_timeout_ms", "70000"),
    ]));
    assert!(message.contains("grpc_addr (flag --grpc-addr) and admin_addr (flag --admin-addr)"), "{message}");
    assert!(message.contains("at most max_timeout_ms (default), which is 60000"), "{message}");

    let any_ports = [("grpc_addr", "127.0.0.1:0"), ("admin_addr", "127.0.0.1:0")];
    assert!(flags(&any_ports).load().is_ok());
    let two_hosts = [("grpc_addr", "127.0.0.1:5000"), ("admin_addr", "127.0.0.2:5000")];
    assert!(flags(&two_hosts).load().is_ok());
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let missing = Inputs { file: Some("no/such/file.toml".into()), ..Inputs::default() };
    assert!(refused(missing).contains("file \"no/such/file.toml\": cannot be read"));
    let broken = file("store_queue = 1\nstore_queue =\n");
    let message = refused(Inputs { file: Some(broken.path().into()), ..Inputs::default() });
    assert!(message.contains("line 2: is not TOML"), "{message}");
    let huge = file(&"#".repeat(1_024 * 1_024 + 1));
    let message = refused(Inputs { file: Some(huge.path().into()), ..Inputs::default() });
    assert!(message.contains("larger than 1 MiB"), "{message}");
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let flags: Vec<(&str, String)> = vec![
        ("store_url", "sqlite:/data/odd \"name\" \\ 'it\'s.db".into()),
        ("store_password_file", "/data/odd \"name\" # \\ 'it\'s".into()),
        ("log_filter", "info,user_service=debug".into()),
        ("grpc_addr", "[::1]:0".into()),
        ("max_connection_age_ms", "0".into()),
        ("article_api", "false".into()),
    ];
    let first = Inputs { flags, ..Inputs::default() }.load().unwrap();
    let printed = file(&first.to_toml());
    let second = Inputs { file: Some(printed.path().into()), ..Inputs::default() }.load().unwrap();
    for key in SETTINGS {
        assert_eq!((key.show)(&first.config), (key.show)(&second.config), "{}", key.name);
    }
    assert_eq!(first.to_toml().lines().count(), SETTINGS.len());
}

#[test]
fn stores_are_named_by_urls() {
    let store = |text: &str| {
        Inputs { flags: vec![("store_url", text.into())], ..Inputs::default() }
            .load()
            .map(|l| l.config.store_url)
    };
    assert_eq!(store("memory:").unwrap(), StoreUrl::Memory);
    assert_eq!(store("sqlite:/data/u.db").unwrap(), StoreUrl::Sqlite("/data/u.db".into()));
    for bad in ["", "memory", "sqlite:a\nb", "mysql:x", "postgres:db", "postgres://db/users"] {
        assert!(store(bad).is_err(), "{bad:?} must be refused");
    }
}

#[test]
fn a_path_that_would_make_a_file_of_another_name_is_refused_with_the_remedy() {
    let store =
        |path: &str| Inputs { flags: vec![("store_url", format!("sqlite:{path}"))], ..Inputs::default() };
    for (bad, remedy) in [
        ("users.db?mode=rwc", "leave out all from ? or # on"),
        ("/data/users.db?cache=shared&mode=memory", "leave out all from ? or # on"),
        ("users.db#fragment", "leave out all from ? or # on"),
        ("users%20of%20mine.db", "without % escapes"),
        ("file:users.db", "without file:"),
        ("file:/data/users.db?mode=ro", "without file:"),
        ("//users.db", "one / or none"),
        ("///data/users.db", "one / or none"),
        (":memory:", "memory: and nothing else"),
        ("", "the path of a file"),
        ("/data/", "the path of a file"),
        ("data/..", "the path of a file"),
        (".", "the path of a file"),
    ] {
        let message = refused(store(bad));
        assert!(
            message.contains(remedy) && message.contains("sqlite:/data/user-service.db"),
            "{bad}: {message}"
        );
    }
    for good in
        ["users.db", "./users.db", "/data/100%.db", "/data/50%off.db", "/data/a b.db", "file.db", "../u.db"]
    {
        assert_eq!(store(good).load().unwrap().config.store_url, StoreUrl::Sqlite(good.into()), "{good}");
    }
}

#[test]
fn a_password_is_not_repeated() {
    let message = refused(Inputs {
        flags: vec![("store_url", "mysql://me:pass@db/users".into())],
        ..Inputs::default()
    });
    assert!(message.contains("not (hidden)") && !message.contains("pass"), "{message}");
}

#[test]
fn a_database_is_named_by_a_url_and_its_password_is_never_shown() {
    let config = |url: &str| {
        Inputs { flags: vec![("store_url", url.into())], ..Inputs::default() }
            .load()
            .map(|loaded| loaded.config)
    };
    let good =
        config("postgres://me:secret@one,two:5433/users?sslmode=require&target_session_attrs=read-write");
    let shown = format!("{:?}", good.unwrap());
    assert!(shown.contains("postgres://me@one,two:5433/users") && !shown.contains("secret"), "{shown}");
    // A certificate is checked against something.
    assert!(config("postgres://me@db/users?sslmode=verify-full").is_err());
}
