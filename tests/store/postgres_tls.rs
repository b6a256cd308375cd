//! The way to the database: certificates and passwords.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    database::{Database, give},
    fixtures::{create, get, stored},
    support::certificates::{Authority, Pair, dns, named},
};
use rcgen::DnType;
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::sleep,
};
use user_service::{
    config::{Config, PostgresUrl, StoreUrl},
    domain::{Deadline, UserKey},
    store::{self, OpenError},
};

/// Writes a client's certificate for a login.
fn certify_login(dir: &Path, authority: &Authority, login: &str) {
    let mut params = named(&[]);
    params.distinguished_name.push(DnType::CommonName, login);
    write_pair(dir, login, &authority.issue(&params));
}

fn write_pair(dir: &Path, name: &str, pair: &Pair) {
    fs::write(dir.join(format!("{name}.pem")), &pair.cert).unwrap();
    let key = dir.join(format!("{name}.key"));
    fs::write(&key, &pair.key).unwrap();
    // PostgreSQL takes no key that others may read.
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
}

/// A server that takes TLS alone, and a password from all but its owner; and the authority of
/// its certificate and of clients.
fn guarded() -> (Database, Authority) {
    let settings = [
        "ssl=on",
        "ssl_cert_file=../server.pem",
        "ssl_key_file=../server.key",
        "ssl_ca_file=../authority.pem",
        // The default from 14 on.
        "password_encryption=scram-sha-256",
    ];
    let authority = Authority::new("authority");
    let database = Database::start_with(&settings, |dir| {
        fs::write(dir.join("authority.pem"), &authority.pem).unwrap();
        fs::write(dir.join("stranger.pem"), Authority::new("stranger").pem).unwrap();
        write_pair(dir, "server", &authority.issue(&named(&[dns("localhost")])));
        give(&dir.join("server.key"));
        let rules = "host all tests 127.0.0.1/32 trust\nhostssl all holder 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(dir.join("data/pg_hba.conf"), rules).unwrap();
    });
    (database, authority)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_checked_as_far_as_sslmode_says() {
    let (server, _) = block_in_place(guarded);
    let owner = server.fresh().await;
    let name = crate::database::name(&owner);
    let admin = server.client(&name).await;
    admin.batch_execute("CREATE ROLE guest LOGIN SUPERUSER PASSWORD 'open sesame'").await.unwrap();
    let password = server.dir().join("password");
    fs::write(&password, "open sesame\n").unwrap();
    let open = |host: &str, mode: &str, authority: Option<&str>| {
        let url = format!("postgres://guest@{host}:{}/{name}?sslmode={mode}", server.port);
        let config = Config {
            store_url: StoreUrl::Postgres(Box::new(PostgresUrl::parse(&url).unwrap())),
            store_ca_file: authority.map(|name| server.dir().join(name).into()).unwrap_or_default(),
            store_password_file: password.clone().into(),
            ..Config::default()
        };
        spawn_blocking(move || store::open(&config))
    };
    let (ours, other) = (Some("authority.pem"), Some("stranger.pem"));
    for (host, mode, authority) in [
        ("localhost", "verify-full", ours),
        ("127.0.0.1", "verify-ca", ours),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "prefer", None),
    ] {
        let store = open(host, mode, authority).await.unwrap().unwrap();
        let user = stored(&store, create(&format!("{}-{mode}", host.replace('.', "-")))).await;
        assert_eq!(get(&store, user.id.as_str()).await, Some(user));
        store.close().await;
    }
    for (host, mode, authority) in [
        ("127.0.0.1", "verify-full", ours),
        ("localhost", "verify-full", other),
        ("localhost", "verify-ca", other),
        ("localhost", "require", other),
        ("localhost", "disable", None),
    ] {
        let refused = open(host, mode, authority).await.unwrap().err();
        assert!(matches!(refused, Some(OpenError::Postgres { .. })), "{host} {mode}: {refused:?}");
    }
    fs::write(&password, "wrong").unwrap();
    let refused = open("localhost", "verify-full", ours).await.unwrap().err().unwrap();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_by_certificate_needs_no_password_and_takes_a_renewed_certificate() {
    let (server, authority) = block_in_place(guarded);
    let owner = server.fresh().await;
    let name = crate::database::name(&owner);
    let admin = server.client(&name).await;
    admin.batch_execute("CREATE ROLE holder LOGIN SUPERUSER").await.unwrap();
    let dir = server.dir();
    certify_login(dir, &authority, "holder");
    certify_login(dir, &authority, "another");
    let url = format!("postgres://holder@localhost:{}/{name}?sslmode=verify-full", server.port);
    let open = |cert: Option<&str>| {
        let file =
            |suffix: &str| cert.map(|cert| dir.join(format!("{cert}.{suffix}")).into()).unwrap_or_default();
        let config = Config {
            store_url: StoreUrl::Postgres(Box::new(PostgresUrl::parse(&url).unwrap())),
            store_ca_file: dir.join("authority.pem").into(),
            store_cert_file: file("pem"),
            store_key_file: file("key"),
            ..Config::default()
        };
        spawn_blocking(move || store::open(&config))
    };
    for refused in [None, Some("another")] {
        let refused = open(refused).await.unwrap().err();
        assert!(matches!(refused, Some(OpenError::Postgres { .. })), "{refused:?}");
    }
    let store = open(Some("holder")).await.unwrap().unwrap();
    let user = stored(&store, create("by-certificate")).await;
    // Every connection is made again, and reads the files for that.
    certify_login(dir, &authority, "holder");
    let ended: SystemTime = admin.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
    admin
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'holder'")
        .await
        .unwrap();
    let renewed = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'holder' AND backend_start > $1";
    let key = UserKey::Id(user.id.clone());
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = store.get(&key, Deadline::NONE).await;
        if found.is_ok() && admin.query_one(renewed, &[&ended]).await.unwrap().get(0) {
            break;
        }
        assert!(Instant::now() < until, "the renewed certificate is not taken: {found:?}");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(&store, user.id.as_str()).await, Some(user));
    store.close().await;
}
