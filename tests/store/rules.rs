//! Rules that the owner of a database added to it: constraints, triggers, policies. What
//! they refuse fails the write that brought it, and no other.

use std::{
    fs,
    process::Command,
    sync::Arc,
    task::{Context, Waker},
};

use crate::{
    database,
    fixtures::{at, create, delete, get, id, plain, repeatable, stored},
    imports::{all_users, serve},
    pgbouncer,
};
use futures_util::future::join_all;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio_postgres::Client;
use tonic::Code;
use tonic_types::StatusExt;
use user_service::{
    domain::{Change, Deadline, Error, Name, Patch, Store},
    proto::user::v1::{CreateUserRequest, User},
    store,
};

/// A store, and its database as the owner has it.
struct Owned {
    store: Arc<dyn Store>,
    owner: Owner,
    _dir: Option<TempDir>,
}

enum Owner {
    Sqlite(Connection),
    Postgres(Client),
}

impl Owner {
    async fn run(&self, sql: &str) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch(sql).unwrap(),
            Self::Postgres(client) => client.batch_execute(sql).await.unwrap(),
        }
    }

    /// Keeps writes waiting, so that those that come meanwhile are one batch.
    async fn hold(&self) {
        self.run(match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN; SELECT FROM user_service.meta FOR UPDATE",
        })
        .await;
    }
}

fn sqlite() -> Owned {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    Owned { store, owner: Owner::Sqlite(Connection::open(path).unwrap()), _dir: Some(dir) }
}

async fn postgres() -> Owned {
    let server = block_in_place(database::shared);
    let config = server.fresh().await;
    let store = block_in_place(|| store::open(&config)).unwrap();
    Owned { store, owner: Owner::Postgres(server.client(&database::name(&config)).await), _dir: None }
}

async fn behind_a_pooler() -> Owned {
    let config = block_in_place(pgbouncer::shared).fresh().await;
    let store = block_in_place(|| store::open(&config)).unwrap();
    let client = block_in_place(database::shared).client(&database::name(&config)).await;
    Owned { store, owner: Owner::Postgres(client), _dir: None }
}

fn rename(name: &str, to: &str) -> Change {
    let patch = Patch { name: Some(Name::parse(to).unwrap()), ..Patch::default() };
    Change::Update { id: id(name), patch, etag: None }
}

/// Whether an answer is that a rule refused the row, and tells nothing of the row.
fn is_refused<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    let Err(Error::RefusedByStore(rule)) = answer else { return false };
    assert!(!rule.contains("odd-") && !rule.contains("example"), "the log must not have {rule}");
    true
}

/// Asks for everything at the same time, so that nearly all of it is one batch, and checks
/// that what is about odd users is refused, and all the rest made, in its order.
async fn only_odd_ones_are_refused(owned: &Owned, rule: &str, changes: Vec<(Change, bool)>) {
    let Owned { store, owner, .. } = owned;
    let before = store.log_head(Deadline::NONE).await.unwrap().newest.revision;
    owner.hold().await;
    let mut context = Context::from_waker(Waker::noop());
    let mut writes = Vec::new();
    for (change, _) in &changes {
        let mut write = Box::pin(store.write(plain(change.clone()), Deadline::NONE));
        assert!(write.as_mut().poll(&mut context).is_pending());
        writes.push(write);
    }
    owner.run("COMMIT").await;
    let answers = join_all(writes).await;
    let mut revision = before;
    for ((change, odd), answer) in changes.iter().zip(&answers) {
        if *odd {
            assert!(is_refused(answer), "{rule}: {change:?}: {answer:?}");
        } else {
            revision += 1;
            let made = answer.as_ref().map(|written| written.revision);
            assert_eq!(made.ok(), Some(revision), "{rule}: {change:?}: {answer:?}");
        }
    }
    let log = store.changes(before, 1_000, Deadline::NONE).await.unwrap();
    let logged: Vec<_> = log.iter().map(|entry| entry.position.revision).collect();
    assert_eq!(logged, (before + 1..=revision).collect::<Vec<_>>(), "{rule}: no revision is lost");
}

/// `rule` refuses new users, and new names, that begin with `odd`.
async fn refuses_odd_names(owned: Owned, rule: &str) {
    let store = &owned.store;
    for name in ["odd-first", "kept-1", "kept-2", "gone"] {
        stored(store, create(name)).await;
    }
    owned.owner.run(rule).await;
    let mut changes = vec![(rename("kept-1", "odd-name-of-kept"), true), (rename("kept-2", "fine"), false)];
    for number in 0..20 {
        let odd = number % 7 == 3;
        let name = if odd { format!("odd-{number}") } else { format!("user-{number}") };
        changes.push((create(&name), odd));
    }
    changes.push((delete("gone"), false));
    only_odd_ones_are_refused(&owned, rule, changes).await;
    assert_eq!(get(store, "odd-3").await, None);
    assert_eq!(get(store, "kept-1").await.unwrap().fields.name.as_str(), "kept-1");
    assert_eq!(get(store, "kept-2").await.unwrap().fields.name.as_str(), "fine");
    // What was refused is not remembered, so it can be asked for again.
    for _ in 0..2 {
        let repeated = store.write(repeatable(create("odd-new"), 1, "odd"), Deadline::NONE).await;
        assert!(is_refused(&repeated), "{rule}: {repeated:?}");
    }
    let fine = store.write(repeatable(create("user-new"), 2, "fine"), Deadline::NONE).await.unwrap();
    assert_eq!(get(store, "user-new").await, fine.user);
    store.close().await;
}

/// `rule` refuses to delete users whose names begin with `odd`.
async fn refuses_to_delete_odd_names(owned: Owned, rule: &str) {
    let store = &owned.store;
    for name in ["odd-1", "odd-2", "user-1", "user-2", "user-3"] {
        stored(store, create(name)).await;
    }
    owned.owner.run(rule).await;
    let changes = ["user-1", "odd-1", "user-2", "odd-2", "user-3"];
    let changes = changes.map(|name| (delete(name), name.starts_with("odd")));
    only_odd_ones_are_refused(&owned, rule, changes.into()).await;
    assert!(get(store, "odd-1").await.is_some() && get(store, "user-2").await.is_none());
    // A user that came and went within one batch was never there to be deleted.
    owned.owner.hold().await;
    let [come, go] =
        [create("user-4"), delete("user-4")].map(|change| store.write(plain(change), Deadline::NONE));
    let let_go = async { owned.owner.run("COMMIT").await };
    let (come, go, ()) = futures_util::join!(come, go, let_go);
    assert!(come.is_ok() && go.is_ok(), "{come:?} {go:?}");
    store.close().await;
}

/// Triggers of `SQLite` that do this before a row with an odd name is written.
fn triggers(act: &str) -> String {
    ["INSERT", "UPDATE"]
        .map(|event| {
            format!(
                "CREATE TRIGGER odd_{event} BEFORE {event} ON users WHEN NEW.name LIKE 'odd%'
                     BEGIN SELECT {act}; END;"
            )
        })
        .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_of_a_file_fails_the_write_that_breaks_it_and_no_other() {
    for rule in [
        triggers("RAISE(ABORT, 'no odd-names@example.com')"),
        triggers("RAISE(FAIL, 'no odd names')"),
        triggers("RAISE(ROLLBACK, 'no odd names')"),
        triggers("RAISE(IGNORE)"),
        // An error of the trigger itself.
        triggers("json(NEW.name)"),
        "CREATE UNIQUE INDEX one_odd ON users (CASE WHEN name LIKE 'odd%' THEN 1 END)".into(),
        "CREATE TRIGGER odd BEFORE INSERT ON changes WHEN NEW.after_image LIKE '%\"odd%'
             BEGIN SELECT RAISE(ABORT, 'odd'); END"
            .into(),
        "CREATE TRIGGER odd BEFORE INSERT ON changes WHEN NEW.after_image LIKE '%\"odd%'
             BEGIN SELECT RAISE(IGNORE); END"
            .into(),
    ] {
        refuses_odd_names(sqlite(), &rule).await;
    }
    for act in ["RAISE(ABORT, 'odd')", "RAISE(IGNORE)"] {
        let rule = format!(
            "CREATE TRIGGER odd BEFORE DELETE ON users WHEN OLD.name LIKE 'odd%' BEGIN SELECT {act}; END"
        );
        refuses_to_delete_odd_names(sqlite(), &rule).await;
    }
}

/// A trigger of `PostgreSQL` that does this for a row with an odd name.
fn trigger(when: &str, row: &str, act: &str) -> String {
    // The change log has the name within a column.
    let name = format!("COALESCE(to_json({row})->>'name', (to_json({row})->>'after_image')::json->>'name')");
    format!(
        "CREATE FUNCTION user_service.no_odd() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF {name} LIKE 'odd%' THEN {act}; END IF; RETURN {row}; END $$;
         CREATE {when} FOR EACH ROW EXECUTE FUNCTION user_service.no_odd()"
    )
}

const BEFORE: &str = "TRIGGER odd BEFORE INSERT OR UPDATE ON user_service.users";
const DEFERRED: &str = "CONSTRAINT TRIGGER odd AFTER INSERT OR UPDATE ON user_service.users
                        DEFERRABLE INITIALLY DEFERRED";

fn rules() -> Vec<String> {
    let logged = "TRIGGER odd BEFORE INSERT ON user_service.changes";
    let raise = "RAISE EXCEPTION 'no % <odd-one@example.com>', NEW.name";
    vec![
        "ALTER TABLE user_service.users ADD CONSTRAINT no_odd CHECK (name NOT LIKE 'odd%') NOT VALID".into(),
        "CREATE UNIQUE INDEX one_odd ON user_service.users ((CASE WHEN name LIKE 'odd%' THEN 1 END))".into(),
        // Statements that were prepared before it fail once.
        "DELETE FROM user_service.users WHERE name LIKE 'odd%';
         CREATE DOMAIN user_service.fair AS text CHECK (VALUE NOT LIKE 'odd%');
         ALTER TABLE user_service.users ALTER COLUMN name TYPE user_service.fair"
            .into(),
        trigger(BEFORE, "NEW", raise),
        trigger(BEFORE, "NEW", "RAISE EXCEPTION USING ERRCODE = 'ODD01', MESSAGE = NEW.name"),
        trigger(BEFORE, "NEW", "NEW.age := NEW.name::integer"),
        trigger(BEFORE, "NEW", "PERFORM user_service.no_such_function()"),
        trigger(BEFORE, "NEW", "RETURN NULL"),
        trigger(logged, "NEW", "RAISE EXCEPTION 'no % <odd-one@example.com>', NEW.after_image"),
        trigger(logged, "NEW", "RETURN NULL"),
        // Not before the commit.
        trigger(DEFERRED, "NEW", raise),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_of_a_database_fails_the_write_that_breaks_it_and_no_other() {
    for rule in rules() {
        refuses_odd_names(postgres().await, &rule).await;
    }
    for act in ["RAISE EXCEPTION 'odd'", "RETURN NULL"] {
        let before = "TRIGGER odd BEFORE DELETE ON user_service.users";
        refuses_to_delete_odd_names(postgres().await, &trigger(before, "OLD", act)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_behind_a_pooler_fails_the_write_that_breaks_it_and_no_other() {
    for rule in [rules().swap_remove(0), trigger(BEFORE, "NEW", "RETURN NULL"), rules().pop().unwrap()] {
        refuses_odd_names(behind_a_pooler().await, &rule).await;
    }
}

/// A user whose name begins like this is refused.
fn user(name: &str) -> User {
    User { name: name.into(), email: format!("{name}@example.com"), age: 36, ..User::default() }
}

/// What a caller is told, and what the log says, over the wire.
async fn is_told_in_the_api(store_url: &str, owner: Owner, rule: &str, named: &str) {
    let (mut server, mut client) = serve(store_url).await;
    owner.run(rule).await;
    let create = |name: &str| CreateUserRequest { user: Some(user(name)), ..CreateUserRequest::default() };
    client.create_user(create("plain")).await.unwrap();
    let status = client.create_user(create("odd-ada")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "REFUSED_BY_STORE");
    assert!(!status.message().contains(named), "{status:?}");
    let line = block_in_place(|| server.wait_for_line("a rule of the database refused a write"));
    assert!(line.contains(named) && !line.contains("odd-ada"), "{line}");

    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("users.jsonl");
    let line = |number: usize| {
        let name = if number % 10 == 7 { format!("odd-{number}") } else { format!("user-{number}") };
        format!("{{\"name\":\"{name}\",\"email\":\"{name}@example.com\",\"age\":1}}\n")
    };
    fs::write(&input, (0..100).map(line).collect::<String>()).unwrap();
    let mut import = Command::new(env!("CARGO_BIN_EXE_user-service"));
    import.args(["import", input.to_str().unwrap(), "--server", &server.grpc_addr.to_string()]).env_clear();
    let output = block_in_place(|| import.output()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.ends_with("import: 90 created, 0 unchanged, 10 refused\n"), "{said}");
    assert!(said.contains(":8: FailedPrecondition: "), "{said}");
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(all_users(&mut client).await.len(), 91);
    let log = server.log().join("\n");
    assert!(!log.contains("odd-") && !log.contains("example.com"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_learns_that_a_rule_refuses_a_user_and_an_import_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    drop(store::open(&at(&path)).unwrap());
    let owner = Owner::Sqlite(Connection::open(&path).unwrap());
    let rule = triggers("RAISE(ABORT, 'no odd names')");
    is_told_in_the_api(&format!("sqlite:{}", path.display()), owner, &rule, "1811").await;

    let server = block_in_place(database::shared);
    let config = server.fresh().await;
    let name = database::name(&config);
    let owner = Owner::Postgres(server.client(&name).await);
    let url = format!("postgres://tests@127.0.0.1:{}/{name}?sslmode=disable", server.port);
    let rule = trigger(BEFORE, "NEW", "RAISE EXCEPTION 'no %', NEW.email");
    is_told_in_the_api(&url, owner, &rule, "user_service.no_odd").await;
}
