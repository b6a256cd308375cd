//! Backups of live stores: whole, private, and restored exactly.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    fixtures::{at, create, delete, plain, rename, repeatable, stored, write},
    imports::fresh_postgres,
    support::documented::examples,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use user_service::{
    config::{Config, PostgresUrl, StoreUrl},
    domain::{Deadline, Entry, LogHead, PageSize, Store, User},
    store,
};

fn user_service(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    block_in_place(|| command.args(args).output().unwrap())
}

fn run(command: &str, url: &str, file: &Path) -> Output {
    user_service(&[command, "--store-url", url, file.to_str().unwrap()])
}

/// Runs a command that works; returns what it said.
fn done(command: &str, url: &str, file: &Path) -> String {
    let done = run(command, url, file);
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    String::from_utf8(done.stderr).unwrap()
}

/// Runs a command that is refused; returns why.
fn refused(command: &str, url: &str, file: &Path) -> String {
    let done = run(command, url, file);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    String::from_utf8(done.stderr).unwrap()
}

fn config(url: &str) -> Config {
    match url.strip_prefix("sqlite:") {
        Some(path) => at(Path::new(path)),
        None => Config {
            store_url: StoreUrl::Postgres(Box::new(PostgresUrl::parse(url).unwrap())),
            ..Config::default()
        },
    }
}

fn open(url: &str) -> Arc<dyn Store> {
    block_in_place(|| store::open(&config(url))).unwrap()
}

/// All that callers of a store can tell it from another one by.
#[derive(Debug, PartialEq)]
struct Seen {
    head: LogHead,
    users: Vec<User>,
    log: Vec<Entry>,
}

async fn seen(store: &Arc<dyn Store>) -> Seen {
    let (mut users, mut log) = (Vec::<User>::new(), Vec::<Entry>::new());
    loop {
        let after = users.last().map(|user| user.id.clone());
        let page = store.list(after.as_ref(), PageSize::at_most(1_000), Deadline::NONE).await.unwrap();
        users.extend(page.users);
        if !page.more {
            break;
        }
    }
    loop {
        let after = log.last().map_or(0, |entry| entry.position.revision);
        let entries = store.changes(after, 1_000, Deadline::NONE).await.unwrap();
        if entries.is_empty() {
            break;
        }
        log.extend(entries);
    }
    Seen { head: store.log_head(Deadline::NONE).await.unwrap(), users, log }
}

/// Users who come, change and go, and a write that can be repeated.
async fn history(store: &Arc<dyn Store>) {
    stored(store, create("ada")).await;
    stored(store, create("bob")).await;
    write(store, delete("bob")).await.unwrap();
    store.write(repeatable(create("cleo"), 1, "cleo"), Deadline::NONE).await.unwrap();
}

/// Creates users, some at a time, until it is told to stop; returns how many.
fn keep_writing(store: &Arc<dyn Store>, stop: &Arc<AtomicBool>, count: &Arc<AtomicUsize>) -> JoinHandle<()> {
    let (store, stop, count) = (Arc::clone(store), Arc::clone(stop), Arc::clone(count));
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let n = count.load(Ordering::Relaxed);
            store.write(plain(create(&format!("load-{n}"))), Deadline::NONE).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

async fn comes_back(source: &str, target: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.db");
    let store = open(source);
    history(&store).await;
    // Under writes: all that was acknowledged before is there, and of the rest a part
    // without a gap, because the check compares the change log with the revision.
    let (stop, count) = (Arc::default(), Arc::default());
    let writing = keep_writing(&store, &stop, &count);
    let before = count.load(Ordering::Relaxed);
    let said = done("backup", source, &file);
    let live = Connection::open(&file).unwrap();
    let users: u32 = live.query_row("SELECT count(*) FROM users", (), |row| row.get(0)).unwrap();
    drop(live);
    assert!(
        users as usize >= 2 + before && said.starts_with(&format!("backup: {users} users, revision ")),
        "{said}"
    );
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();

    let said = done("backup", source, &file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "nobody else's");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["backup.db"], "it is the one file, and needs no other");
    let expected = seen(&store).await;
    assert!(said.contains(&format!(
        "{} users, revision {}\n",
        expected.users.len(),
        expected.head.newest.revision
    )));
    store.close().await;

    assert_eq!(done("restore", target, &file), said.replace("backup", "restore"));
    let store = open(target);
    assert_eq!(seen(&store).await, expected);
    // What was recorded of a write is there, too.
    let again = store.write(repeatable(create("cleo"), 1, "cleo"), Deadline::NONE).await.unwrap();
    assert_eq!(again.revision, 4);
    assert_eq!(seen(&store).await, expected);
    assert_eq!(stored(&store, create("next")).await.revision, expected.head.newest.revision + 1);
    store.close().await;
}

fn sqlite() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("users.db").display());
    (dir, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_comes_back_exactly_from_a_backup() {
    let ((_first, from), (_second, to)) = (sqlite(), sqlite());
    comes_back(&from, &to).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_comes_back_exactly_from_a_backup() {
    comes_back(&fresh_postgres().await, &fresh_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_into_the_other_kind_of_store() {
    let (_dir, url) = sqlite();
    comes_back(&url, &fresh_postgres().await).await;
    let (_dir, url) = sqlite();
    comes_back(&fresh_postgres().await, &url).await;
}

/// The store `users.db`, with a user, in a directory of its own.
async fn closed() -> (TempDir, PathBuf, String) {
    let (dir, url) = sqlite();
    let store = open(&url);
    stored(&store, create("ada")).await;
    store.close().await;
    let path = dir.path().join("users.db");
    (dir, path, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_replaces_an_older_one_and_nothing_else() {
    let (dir, path, url) = closed().await;
    let backup = dir.path().join("backup.db");
    done("backup", &url, &backup);
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o644)).unwrap();
    done("backup", &url, &backup);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    done("backup", &url, &empty);
    let text = dir.path().join("config.toml");
    fs::write(&text, "log_filter = \"info\"\n").unwrap();
    let why = refused("backup", &url, &text);
    assert!(why.contains("config.toml holds something else: name a new file, or an older backup"), "{why}");
    assert_eq!(fs::read_to_string(&text).unwrap(), "log_filter = \"info\"\n");
    let store = open(&url);
    // By another name, too.
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let others = ["users.db-wal", "users.db.lock", "users.db.part", "users.db.replaced"];
    for name in [path, link].into_iter().chain(others.map(|name| dir.path().join(name))) {
        let why = refused("backup", &url, &name);
        assert!(why.contains("belongs to the store"), "{why}");
    }
    store.close().await;
    // A store that another service has open, or did not close.
    let (_other_dir, other, other_url) = closed().await;
    let store = open(&other_url);
    stored(&store, create("bob")).await;
    let why = refused("backup", &url, &other);
    assert!(why.contains("users.db-wal is there"), "{why}");
    assert!(crate::fixtures::get(&store, "bob").await.is_some());
    store.close().await;
    for name in ["/dev/null", dir.path().to_str().unwrap()] {
        let why = refused("backup", &url, Path::new(name));
        assert!(why.contains("not a regular file"), "{why}");
    }
    assert!(fs::metadata("/dev/null").unwrap().len() == 0 && !Path::new("/dev/null.part").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_backups_that_are_made_concurrently_under_one_name_each_is_whole() {
    let (dir, _, url) = closed().await;
    let store = open(&url);
    for n in 0..500 {
        stored(&store, create(&format!("user-{n}"))).await;
    }
    store.close().await;
    let backup = dir.path().join("backup.db");
    for _ in 0..5 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
        command.args(["backup", "--store-url", &url, backup.to_str().unwrap()]).stderr(Stdio::piped());
        let made: Vec<_> = (0..4).map(|_| command.spawn().unwrap()).collect();
        for made in made {
            let done = block_in_place(|| made.wait_with_output().unwrap());
            assert!(done.status.success(), "{done:?}");
        }
        let copy = TempDir::new().unwrap();
        let said = done("restore", &format!("sqlite:{}", copy.path().join("users.db").display()), &backup);
        assert_eq!(said, "restore: 501 users, revision 501\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_takes_away_neither_the_backup_nor_what_an_earlier_one_kept() {
    let (dir, path, url) = closed().await;
    let backup = dir.path().join("backup.db");
    done("backup", &url, &backup);
    let part = dir.path().join("users.db.part");
    fs::copy(&backup, &part).unwrap();
    let replace =
        |from: &Path| user_service(&["restore", "--replace", "--store-url", &url, from.to_str().unwrap()]);
    let refused = replace(&part);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("give the backup another name"), "{refused:?}");
    assert!(fs::read(&part).unwrap() == fs::read(&backup).unwrap());
    assert!(replace(&backup).status.success());
    let kept = path.with_extension("db.replaced");
    fs::write(&kept, "the store as it was").unwrap();
    let refused = replace(&backup);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is there already"), "{refused:?}");
    assert_eq!(fs::read(&kept).unwrap(), b"the store as it was");
    fs::remove_file(&kept).unwrap();
    assert!(replace(&backup).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_through_a_link_replaces_what_the_link_leads_to() {
    let (dir, path, url) = closed().await;
    let (backup, link) = (dir.path().join("backup.db"), dir.path().join("link.db"));
    done("backup", &url, &backup);
    let store = open(&url);
    stored(&store, create("bob")).await;
    store.close().await;
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let by_link = format!("sqlite:{}", link.display());
    let replaced = user_service(&["restore", "--replace", "--store-url", &by_link, backup.to_str().unwrap()]);
    assert!(replaced.status.success(), "{replaced:?}");
    assert!(link.is_symlink() && path.with_extension("db.replaced").is_file());
    let store = open(&url);
    assert!(crate::fixtures::get(&store, "bob").await.is_none());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etag_of_what_a_restore_took_back_is_of_no_later_version() {
    let (dir, _, url) = closed().await;
    let backup = dir.path().join("backup.db");
    done("backup", &url, &backup);
    let store = open(&url);
    let taken_back = stored(&store, rename("ada", "countess")).await;
    store.close().await;
    assert!(
        user_service(&["restore", "--replace", "--store-url", &url, backup.to_str().unwrap()])
            .status
            .success()
    );
    let store = open(&url);
    let now = stored(&store, rename("ada", "lady")).await;
    assert_eq!((now.revision, now.etag() == taken_back.etag()), (taken_back.revision, false));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_backup_is_not_restored() {
    let (dir, path, url) = closed().await;
    let backup = dir.path().join("backup.db");
    done("backup", &url, &backup);
    let whole = fs::read(&backup).unwrap();
    let target = dir.path().join("new.db");
    let target_url = format!("sqlite:{}", target.display());
    let cut = &whole[..whole.len() - 4_096];
    let mut flipped = whole.clone();
    // One letter of one of the places that know an address: only a check of all notices.
    let address = whole.windows(15).position(|bytes| bytes == b"ada@example.com").unwrap();
    flipped[address] = b'x';
    for (name, content, why) in [
        ("cut", cut, "is not a whole backup"),
        ("flipped", &flipped, "is not a whole backup"),
        ("empty", &[][..], "is not a user-service store"),
        ("other", &[b'x'; 5_000][..], "is not a user-service store"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, content).unwrap();
        let said = refused("restore", &target_url, &file);
        assert!(said.contains(why) && said.contains(name), "{name}: {said}");
        assert!(!target.exists(), "{name}");
    }
    assert!(refused("restore", &target_url, &dir.path().join("missing")).contains("missing"));
    // Nobody's users are overwritten.
    let before = fs::read(&path).unwrap();
    let said = refused("restore", &url, &backup);
    assert!(said.contains("is left as it is") && said.contains("--replace"), "{said}");
    assert!(fs::read(&path).unwrap() == before);
    let store = open(&url);
    assert!(refused("restore", &url, &backup).contains("in use by another process"));
    store.close().await;
    // A store that is damaged is replaced, and kept.
    fs::write(&path, &flipped).unwrap();
    assert!(refused("restore", &url, &backup).contains("users.db"));
    let replaced = user_service(&["restore", "--replace", "--store-url", &url, backup.to_str().unwrap()]);
    assert!(replaced.status.success(), "{replaced:?}");
    // But for its header, which says that it has a log.
    let kept = fs::read(dir.path().join("users.db.replaced")).unwrap();
    assert!(kept[100..] == flipped[100..]);
    let store = open(&url);
    assert_eq!(seen(&store).await.users.len(), 1);
    store.close().await;
    // One that has just been made is empty.
    store::migrate(&at(&target)).unwrap();
    done("restore", &target_url, &backup);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_users_is_not_overwritten() {
    let (dir, _, url) = closed().await;
    let backup = dir.path().join("backup.db");
    done("backup", &url, &backup);
    let database = fresh_postgres().await;
    assert!(refused("backup", &database, &dir.path().join("none")).contains("holds no store"));
    assert!(!dir.path().join("none").exists());
    let store = open(&database);
    stored(&store, create("bob")).await;
    let said = refused("restore", &database, &backup);
    assert!(said.contains("holds users or their history") && !said.contains("ada"), "{said}");
    assert_eq!(seen(&store).await.users.len(), 1);
    store.close().await;
    let replaced =
        user_service(&["restore", "--replace", "--store-url", &database, backup.to_str().unwrap()]);
    assert!(replaced.status.success(), "{replaced:?}");
    let store = open(&database);
    let users = seen(&store).await.users;
    assert_eq!(users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["ada"]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_through_pipes() {
    let (_dir, _, url) = closed().await;
    let (to_dir, to) = sqlite();
    let mut backup = Command::new(env!("CARGO_BIN_EXE_user-service"));
    let mut backup =
        backup.args(["backup", "--store-url", &url, "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut restore = Command::new(env!("CARGO_BIN_EXE_user-service"));
    restore.args(["restore", "--store-url", &to, "-"]).stdin(backup.stdout.take().unwrap());
    assert!(block_in_place(|| restore.status().unwrap()).success());
    assert!(block_in_place(|| backup.wait().unwrap()).success());
    let store = open(&to);
    assert_eq!(seen(&store).await.users.len(), 1);
    store.close().await;
    let left = fs::read_dir(to_dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("part"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_store_in_memory_is_not_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_user-service"))
        .args(["backup", "--store-url", "memory:"])
        .arg(dir.path().join("backup.db"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("user-service export"), "{done:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What docs/OPERATIONS.md shows, run as it stands but for the places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_recipes_print_what_they_show_and_bring_everybody_back() {
    let dir = tempfile::tempdir().unwrap();
    for directory in ["data", "backup"] {
        fs::create_dir(dir.path().join(directory)).unwrap();
    }
    let here = dir.path().display();
    let database = fresh_postgres().await;
    let at_home = |command: &str| {
        let command = command.replace("/data/", &format!("{here}/data/"));
        let command = command.replace("/backup/", &format!("{here}/backup/"));
        command.replace("postgres://users@db-1/accounts", &format!("'{database}'"))
    };
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Back up and restore")).unwrap();
    for url in [format!("sqlite:{here}/data/user-service.db"), database.clone()] {
        let recipe: Vec<_> = examples(section)
            .into_iter()
            .filter(|example| example.command.starts_with("user-service "))
            .map(|example| (at_home(&example.command), example.output))
            .filter(|(command, _)| command.contains(&url))
            .collect();
        let [backup, restore] = &recipe[..] else { panic!("{url}: {recipe:?}") };
        let store = open(&url);
        history(&store).await;
        let expected = seen(&store).await;
        prints(backup);
        stored(&store, create("later")).await;
        store.close().await;
        prints(restore);
        let store = open(&url);
        assert_eq!(seen(&store).await, expected, "{url}");
        store.close().await;
    }
}

fn prints((command, output): &(String, String)) {
    let programs = Path::new(env!("CARGO_BIN_EXE_user-service")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    let run =
        block_in_place(|| Command::new("bash").args(["-c", command]).env("PATH", path).output().unwrap());
    assert!(run.status.success(), "{command}: {run:?}");
    assert_eq!(&String::from_utf8(run.stderr).unwrap(), output, "{command}");
}
