//! Databases and logins as people have them: encodings, settings of a role, rights.

use std::process::{Command, Output};

use crate::{
    database::{self, Database, name},
    fixtures::{create, delete, get, plain, stored, write},
    support::Server,
};
use tokio::task::block_in_place;
use user_service::{
    config::{Config, PostgresUrl, StoreUrl},
    domain::{Deadline, Error},
    store::{self, OpenError},
};

/// Opens a store as this login, on a thread that may block.
fn open(
    server: &Database,
    login: &str,
    name: &str,
) -> Result<std::sync::Arc<dyn user_service::domain::Store>, OpenError> {
    block_in_place(|| store::open(&server.config(login, name)))
}

/// Runs a command of the service on this database.
fn run(command: &str, server: &Database, login: &str, name: &str) -> Output {
    let url = format!("postgres://{login}@127.0.0.1:{}/{name}?sslmode=disable", server.port);
    // A server that is not refused would serve for ever.
    let mut us = Command::new("timeout");
    us.args(["30", env!("CARGO_BIN_EXE_user-service"), command]).args([
        "--store-url",
        &url,
        "--grpc-addr",
        "127.0.0.1:0",
        "--admin-addr",
        "127.0.0.1:0",
    ]);
    block_in_place(|| us.env_clear().output()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_hold_every_name_gets_no_store() {
    let server = block_in_place(database::shared);
    let admin = server.client("postgres").await;
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let name = format!("in_{}", encoding.to_lowercase());
        let create = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        );
        admin.batch_execute(&create).await.unwrap();
        for command in ["serve", "migrate"] {
            let output = run(command, server, "tests", &name);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command}: {said}");
            let remedy = "createdb --encoding=UTF8 --locale=C --template=template0";
            assert!(said.contains(encoding) && said.contains(remedy), "{command}: {said}");
        }
        let made = "SELECT 1 FROM pg_namespace WHERE nspname = 'user_service'";
        assert!(server.client(&name).await.query(made, &[]).await.unwrap().is_empty(), "it is left alone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_any_locale_sorts_users_by_their_ids() {
    let server = block_in_place(database::shared);
    let admin = server.client("postgres").await;
    let icu = admin.query("SELECT 1 FROM pg_collation WHERE collname = 'de-x-icu'", &[]).await.unwrap();
    let version: i32 =
        admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    let mut locales = vec!["LOCALE 'C'"];
    if version >= 150_000 && !icu.is_empty() {
        locales.push("LOCALE_PROVIDER icu ICU_LOCALE 'da-DK' LOCALE 'C'");
    }
    if version >= 170_000 {
        locales.push("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'");
    }
    for (number, locale) in locales.iter().enumerate() {
        let name = format!("locale_{number}");
        let create_it = format!("CREATE DATABASE {name} ENCODING 'UTF8' {locale} TEMPLATE template0");
        admin.batch_execute(&create_it).await.unwrap();
        if locale.contains("da-DK") {
            let danish = server.client(&name).await.query_one("SELECT 'aa' > 'z'", &[]).await.unwrap();
            assert!(danish.get::<_, bool>(0), "other texts are sorted as the locale says");
        }
        let store = open(server, "tests", &name).unwrap();
        for id in ["z", "b", "aa", "a1", "a1-b", "a-1", "a-b"] {
            stored(&store, create(id)).await;
        }
        let page = user_service::domain::PageSize::at_most(100);
        let page = store.list(None, page, Deadline::NONE).await.unwrap();
        let ids: Vec<_> = page.users.iter().map(|user| user.id.as_str()).collect();
        assert_eq!(ids, ["a-1", "a-b", "a1", "a1-b", "aa", "b", "z"], "{locale}");
        store.close().await;
    }
}

/// What a role may have set, all of which a connection begins with.
const SETTINGS: &[&str] = &[
    "search_path = elsewhere",
    "statement_timeout = '20s'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "DateStyle = 'SQL, DMY'",
    "TimeZone = 'Asia/Kathmandu'",
    "client_min_messages = 'debug5'",
    "row_security = off",
    "synchronous_commit = off",
    "enable_indexscan = off",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "xmloption = 'document'",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_login_has_set_changes_nothing() {
    let server = block_in_place(database::shared);
    let admin = server.client("postgres").await;
    admin.batch_execute("CREATE ROLE particular LOGIN").await.unwrap();
    for setting in SETTINGS {
        admin
            .batch_execute(&format!("ALTER ROLE particular RESET ALL; ALTER ROLE particular SET {setting}"))
            .await
            .unwrap();
        let name = name(&server.fresh().await);
        let client = server.client(&name).await;
        client
            .batch_execute(&format!(
                "GRANT CREATE ON DATABASE {name} TO particular; CREATE SCHEMA elsewhere AUTHORIZATION particular;
                 CREATE TABLE elsewhere.users (id integer); CREATE TABLE elsewhere.meta (id integer)"
            ))
            .await
            .unwrap();
        let store = open(server, "particular", &name).unwrap_or_else(|error| panic!("{setting}: {error}"));
        // Whether a commit waits until it is durable.
        client
            .batch_execute(
                "CREATE TABLE elsewhere.commits (how text); GRANT INSERT ON elsewhere.commits TO particular;
                 CREATE FUNCTION elsewhere.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO elsewhere.commits VALUES (current_setting('synchronous_commit')); RETURN NULL;
                 END $$;
                 CREATE TRIGGER note AFTER INSERT ON user_service.changes EXECUTE FUNCTION elsewhere.note()",
            )
            .await
            .unwrap();
        let ada = stored(&store, create("ada")).await;
        assert_eq!(get(&store, "ada").await, Some(ada), "{setting}");
        let repeated = crate::fixtures::repeatable(create("bob"), 1, "bob");
        let bob = store.write(repeated.clone(), Deadline::NONE).await.unwrap();
        assert_eq!(store.write(repeated, Deadline::NONE).await.unwrap(), bob, "{setting}");
        write(&store, delete("ada")).await.unwrap();
        assert_eq!(store.changes(0, 10, Deadline::NONE).await.unwrap().len(), 3, "{setting}");
        store.close().await;
        let early = client.query("SELECT 1 FROM elsewhere.commits WHERE how = 'off'", &[]).await.unwrap();
        assert!(early.is_empty(), "{setting}: commits are answered before they are durable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_takes_the_time_that_it_needs() {
    let server = block_in_place(database::shared);
    let name = name(&server.fresh().await);
    let client = server.client(&name).await;
    client
        .batch_execute(&format!(
            "CREATE ROLE hasty LOGIN; GRANT CREATE ON DATABASE {name} TO hasty;
             ALTER ROLE hasty SET statement_timeout = '10s';
             ALTER ROLE hasty SET idle_in_transaction_session_timeout = '10s';
             CREATE TABLE public.limits (of_steps text);
             CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 INSERT INTO public.limits VALUES (current_setting('statement_timeout')),
                     (current_setting('idle_in_transaction_session_timeout'));
             END $$;
             CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION public.note()"
        ))
        .await
        .unwrap();
    block_in_place(|| store::migrate(&server.config("hasty", &name))).unwrap();
    let limits = client.query("SELECT DISTINCT of_steps FROM public.limits", &[]).await.unwrap();
    let limits: Vec<String> = limits.iter().map(|row| row.get(0)).collect();
    assert_eq!(limits, ["0"], "no step has a limit");
}

/// Settings that cannot be worked with, and what is said of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_cannot_write_safely_is_told_what_to_change() {
    let server = block_in_place(database::shared);
    let name = name(&server.fresh().await);
    let admin = server.client(&name).await;
    admin.batch_execute("CREATE ROLE reader LOGIN; CREATE ROLE copier LOGIN SUPERUSER").await.unwrap();
    admin.batch_execute("ALTER ROLE copier SET session_replication_role = 'replica'").await.unwrap();
    open(server, "tests", &name).unwrap().close().await;
    let steps = [
        ("", "reader", "has no SELECT ON user_service.meta: have the owner"),
        (
            "GRANT USAGE ON SCHEMA user_service TO reader",
            "reader",
            "has no SELECT ON user_service.meta: have the owner",
        ),
        (
            "GRANT SELECT ON ALL TABLES IN SCHEMA user_service TO reader",
            "reader",
            "has no UPDATE ON user_service.meta, INSERT ON user_service.users, ",
        ),
        (
            "GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA user_service TO reader",
            "reader",
            "has no DELETE ON user_service.users, DELETE ON user_service.changes, \
             DELETE ON user_service.idempotency: have the owner of the schema run `GRANT ",
        ),
        (
            "GRANT DELETE ON ALL TABLES IN SCHEMA user_service TO reader;
             ALTER ROLE reader SET default_transaction_read_only = on",
            "reader",
            "default_transaction_read_only is on",
        ),
        ("", "copier", "`ALTER ROLE login RESET session_replication_role`"),
    ];
    for (grant, login, expected) in steps {
        admin.batch_execute(grant).await.unwrap();
        let message = open(server, login, &name).err().unwrap_or_else(|| panic!("no {expected}")).to_string();
        assert!(message.contains(expected), "{message}");
    }
    admin.batch_execute("ALTER ROLE reader RESET ALL").await.unwrap();
    let store = open(server, "reader", &name).unwrap();
    stored(&store, create("ada")).await;
    store.close().await;
    // A schema that is not there, and no right to make it.
    let empty = crate::database::name(&server.fresh().await);
    let output = run("migrate", server, "reader", &empty);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("run `user-service migrate` with one that may"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_fails_the_write_that_it_refuses_and_no_other() {
    let server = block_in_place(database::shared);
    let name = name(&server.fresh().await);
    let admin = server.client(&name).await;
    open(server, "tests", &name).unwrap().close().await;
    admin
        .batch_execute(
            "CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA user_service TO clerk;
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA user_service TO clerk;
             ALTER TABLE user_service.users ENABLE ROW LEVEL SECURITY;
             CREATE POLICY reads ON user_service.users FOR SELECT USING (true);
             CREATE POLICY new ON user_service.users FOR INSERT WITH CHECK (name NOT LIKE 'odd%');
             CREATE POLICY old ON user_service.users FOR UPDATE USING (true) WITH CHECK (name NOT LIKE 'odd%');
             CREATE POLICY gone ON user_service.users FOR DELETE USING (name NOT LIKE 'kept%')",
        )
        .await
        .unwrap();
    let store = open(server, "clerk", &name).unwrap();
    for name in ["kept", "user"] {
        stored(&store, create(name)).await;
    }
    let names = ["user-1", "odd-1", "user-2", "odd-2", "user-3"];
    let writes = names.map(|name| store.write(plain(create(name)), Deadline::NONE));
    for (name, answer) in names.iter().zip(futures_util::future::join_all(writes).await) {
        let refused = matches!(&answer, Err(Error::RefusedByStore(_)));
        assert_eq!(refused, name.starts_with("odd"), "{name}: {answer:?}");
    }
    // A policy hides the row from a delete, which then finds nothing and says so.
    let kept = write(&store, delete("kept")).await;
    assert!(matches!(kept, Err(Error::RefusedByStore(_))), "{kept:?}");
    write(&store, delete("user")).await.unwrap();
    assert!(get(&store, "kept").await.is_some() && get(&store, "user").await.is_none());
    store.close().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    let url = format!("postgres://clerk@127.0.0.1:{}/{name}?sslmode=disable", server.port);
    command.env("USERSVC_STORE_URL", url);
    let mut serving = block_in_place(|| Server::spawn(command));
    assert!(serving.log().iter().any(|line| line.contains("row-level security") && line.contains("users")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_no_store_and_the_primary_beside_it_is_found() {
    let primary = block_in_place(Database::start);
    let standby = primary.standby().await;
    let url = |ports: &[u16]| {
        let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        let url = format!("postgres://tests@{hosts}/postgres?sslmode=disable&target_session_attrs=primary");
        StoreUrl::Postgres(Box::new(PostgresUrl::parse(&url).unwrap()))
    };
    let open = |ports: &[u16]| {
        let config = Config { store_url: url(ports), ..Config::default() };
        block_in_place(|| store::open(&config))
    };
    let refused = open(&[standby.port]).err().unwrap().to_string();
    assert!(refused.contains("it takes no writes: it is a standby"), "{refused}");
    let store = open(&[standby.port, primary.port]).unwrap();
    let ada = stored(&store, create("ada")).await;
    assert_eq!(get(&store, "ada").await, Some(ada));
    store.close().await;
}

/// As for logical replication: rows that are changed must be known by a key of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_of_all_tables_changes_nothing() {
    let server = block_in_place(|| Database::start_with(&["wal_level=logical"], |_| {}));
    let name = name(&server.fresh().await);
    let client = server.client(&name).await;
    client.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('reader', 'pgoutput')";
    client.query(slot, &[]).await.unwrap();
    let store = open(&server, "tests", &name).unwrap();
    stored(&store, create("ada")).await;
    let bob = crate::fixtures::repeatable(create("bob"), 1, "bob");
    store.write(bob, Deadline::NONE).await.unwrap();
    write(&store, delete("ada")).await.unwrap();
    assert_eq!(store.changes(0, 10, Deadline::NONE).await.unwrap().len(), 3);
    store.close().await;
    let told = "SELECT 1 FROM pg_logical_slot_peek_binary_changes('reader', NULL, NULL,
                    'proto_version', '1', 'publication_names', 'everything')";
    assert!(client.query(told, &[]).await.unwrap().len() > 10, "the changes are published");
}
