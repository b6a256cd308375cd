//! URLs as providers, libpq and other drivers have them.

use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, TargetSessionAttrs};

use super::*;

fn with(option: &str) -> Result<PostgresUrl, String> {
    PostgresUrl::parse(&format!("postgres://me@db/users?{option}"))
}

#[test]
fn every_option_is_taken_or_names_what_to_use_instead() {
    let values: &[(&str, &[&str], &[&str])] = &[
        ("application_name", &["users-2"], &[""]),
        ("channel_binding", &["disable", "prefer", "require"], &["maybe"]),
        ("client_encoding", &["UTF8", "auto"], &["LATIN1"]),
        ("connect_timeout", &["10"], &["soon"]),
        ("dbname", &["users"], &[]),
        ("gssdelegation", &["0"], &["1"]),
        ("gssencmode", &["disable", "prefer"], &["require"]),
        ("host", &["db-2", "/var/run/postgresql"], &["a@b"]),
        ("hostaddr", &["127.0.0.1"], &["nowhere"]),
        ("keepalives", &["0", "1"], &["yes"]),
        ("keepalives_count", &["3"], &["few"]),
        ("keepalives_idle", &["30"], &["long"]),
        ("keepalives_interval", &["30"], &["long"]),
        ("load_balance_hosts", &["disable", "random"], &["fair"]),
        ("max_protocol_version", &["3.0"], &["3.2"]),
        ("min_protocol_version", &["3.0"], &["3.2"]),
        ("options", &["-c%20geqo%3Doff", "endpoint%3Dep-1"], &[""]),
        ("pgbouncer", &["true", "false"], &["1"]),
        ("port", &["6432"], &["x"]),
        ("replication", &["false"], &["database"]),
        ("ssl_max_protocol_version", &["TLSv1.3"], &["TLSv1.2"]),
        ("ssl_min_protocol_version", &["TLSv1.2"], &["TLSv1.3"]),
        ("sslcertmode", &["disable", "allow"], &["require"]),
        ("sslcompression", &["0"], &["1"]),
        ("sslmode", &["disable", "prefer", "require", "verify-ca", "verify-full"], &["allow", "on", ""]),
        ("sslnegotiation", &["postgres"], &["direct"]),
        ("sslsni", &["1"], &["0"]),
        (
            "target_session_attrs",
            &["read-write", "primary"],
            &["any", "standby", "prefer-standby", "read-only"],
        ),
        ("tcp_user_timeout", &["3000"], &["long"]),
        ("user", &["you"], &[]),
    ];
    for (name, good, bad) in values {
        for value in *good {
            let read = with(&format!("{name}={value}"));
            assert!(read.is_ok(), "{name}={value}: {read:?}");
        }
        for value in *bad {
            let message = with(&format!("{name}={value}")).expect_err(name);
            let names_it = message.contains(name) || (*name == "host" && message.contains("its host"));
            assert!(names_it, "{name}={value}: {message}");
        }
    }
    for (name, meaning) in options::OPTIONS {
        if let options::Meaning::Instead(what) = meaning {
            let message = with(&format!("{name}=S3cret")).expect_err(name);
            assert_eq!(message, format!("its option {name} is not taken: {what}"));
        } else {
            assert!(values.iter().any(|(tried, ..)| tried == name), "{name} is tried");
        }
    }
}

#[test]
fn an_instead_names_a_setting_that_there_is() {
    for (option, setting) in [
        ("sslrootcert=ca.pem", "store_ca_file"),
        ("passfile=x", "store_password_file"),
        ("password=S3cret", "store_password_file"),
        ("statement_timeout=1", "store_timeout_ms"),
        ("connection_limit=1", "store_connections"),
        ("statement_cache_size=0", "store_prepared_statements"),
    ] {
        let message = with(option).unwrap_err();
        assert!(message.contains(setting), "{message}");
        assert!(crate::config::SETTINGS.iter().any(|key| key.name == setting), "{setting}");
    }
}

#[test]
fn options_mean_what_libpq_means_by_them() {
    let url = with(
        "connect_timeout=3&tcp_user_timeout=2500&keepalives_idle=7&keepalives_count=9&channel_binding=require\
         &load_balance_hosts=random&application_name=us&target_session_attrs=primary&sslmode=disable",
    )
    .unwrap();
    let server = &url.server;
    assert_eq!(server.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(server.get_tcp_user_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(server.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(server.get_keepalives_interval(), Some(Duration::from_secs(5)), "which is not given");
    assert_eq!(server.get_keepalives_retries(), Some(9));
    assert_eq!(server.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(server.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(server.get_application_name(), Some("us"));
    assert_eq!(server.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(url.tls, TlsMode::Disable);
    let socket = PostgresUrl::parse("postgresql:///users?host=/var/run/postgresql&user=me").unwrap();
    assert_eq!(socket.server.get_hosts(), [Host::Unix("/var/run/postgresql".into())]);
}

#[test]
fn hosts_and_ports_in_options_are_taken_in_place_of_those_before_the_path() {
    for (url, hosts, ports) in [
        ("postgres://me@db/users?port=15432", &["db"][..], &[15_432][..]),
        ("postgres://me@db:1/users?port=15432", &["db"], &[15_432]),
        ("postgres://me@db-1,db-2:1/users?port=15432", &["db-1", "db-2"], &[15_432]),
        ("postgres://me@db-1,db-2/users?port=1,2", &["db-1", "db-2"], &[1, 2]),
        ("postgres://me@db-1:1,db-2,[::1]:3/users", &["db-1", "db-2", "::1"], &[1, 5_432, 3]),
        ("postgres://me@db-1/users?host=db-2", &["db-2"], &[5_432]),
        ("postgres://me@/users?host=db-2&port=2", &["db-2"], &[2]),
        ("postgres:///users?host=db-2&port=2&user=me", &["db-2"], &[2]),
    ] {
        let server = PostgresUrl::parse(url).unwrap().server;
        let hosts: Vec<_> = hosts.iter().map(|host| Host::Tcp((*host).to_owned())).collect();
        assert_eq!((server.get_hosts(), server.get_ports()), (&hosts[..], ports), "{url}");
    }
    for url in [
        "postgres://me@db/users?port=1,2",
        "postgres://me@db-1,db-2,db-3/users?port=1,2",
        "postgres://me@db-1:1,db-2:2/users?host=db-3",
    ] {
        let why = PostgresUrl::parse(url).unwrap_err();
        assert!(why.contains("name one port, or one for each"), "{url}: {why}");
    }
}

#[test]
fn a_password_that_is_not_escaped_is_suspected_and_not_shown() {
    for url in [
        "postgres://me:S3c@ret@db/users",
        "postgres://me:S3c/ret@db/users",
        "postgres://me:12/ret@db/users",
        "postgres://me:S3c?ret@db/users",
        "postgres://me:12?ret=1@db/users",
        "postgres://me:S3c%ret@db/users",
        "postgres://me:S3cret%@db/users",
        "postgres://me:S3c%2@db/users?sslmode=require",
        "postgres://me@corp:S3cret@db/users",
    ] {
        assert_eq!(PostgresUrl::parse(url).unwrap_err(), UNESCAPED, "{url}");
    }
    for (url, password) in [
        ("postgres://me:S3c%40%2F%3F%25ret@db/users", "S3c@/?%ret"),
        // These end nothing.
        ("postgres://me:S3c#:&=ret@db/users", "S3c#:&=ret"),
        ("postgres://me:S3cret@db/users?application_name=a@b", "S3cret"),
    ] {
        let read = PostgresUrl::parse(url).unwrap();
        assert_eq!(read.server.get_password(), Some(password.as_bytes()), "{url}");
        assert_eq!(read.server.get_hosts(), [Host::Tcp("db".into())], "{url}");
        assert!(read.to_string().starts_with("postgres://me@db/users"), "{read}");
        assert!(!read.to_string().contains("ret"), "{read}");
    }
}

#[test]
fn what_is_not_understood_is_named_and_never_repeated() {
    for (url, message) in [
        ("postgres://me@db/users?sslmod=S3cret", "it has no option sslmod; did you mean sslmode?"),
        ("postgres://me@db/users?zzz=S3cret", "it has no option zzz"),
        ("postgres://me@db/users?S3cret", "it has an option that is not known"),
        ("postgres://me@db/users?p%61ssword=S3cret", "it has an option that is not known"),
        ("postgres://me:p@db/users?x=S3cret@db", "it has an option that is not known"),
        ("postgres://me@db/users?sslmode=disable&sslmode=require", "its option sslmode is there twice"),
        ("postgres://me@db:S3cret/users", "its host, port or database is not understood"),
        ("postgres://me@S3c ret/users", "its host is not a name or an address"),
        ("postgres://me@/users", "it names no host"),
        ("postgres://db/users", "it names no user"),
        ("postgresql+asyncpg://me:S3cret@db/users", "it must begin with postgres:// or postgresql://"),
        ("postgres:S3cret", "it must begin with postgres:// or postgresql://"),
    ] {
        assert_eq!(PostgresUrl::parse(url).unwrap_err(), message, "{url}");
    }
}
