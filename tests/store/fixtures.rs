//! Stores to test, and users to put in them.

use std::{path::Path, sync::Arc};

use crate::{database, pgbouncer};
use tempfile::TempDir;
use tokio::{runtime::Handle, task::block_in_place};
use user_service::{
    config::{Config, StoreUrl},
    domain::{
        Age, Caller, Change, Deadline, Email, Error, Fields, Idempotency, Name, Patch, RequestId, Store,
        User, UserId, UserKey, Write, WriteResult,
    },
    store,
};

/// A store, and the directory that it may use.
pub struct Opened {
    pub store: Arc<dyn Store>,
    _dir: Option<TempDir>,
}

pub fn memory() -> Opened {
    let config = Config { store_url: StoreUrl::Memory, ..Config::default() };
    Opened { store: store::open(&config).unwrap(), _dir: None }
}

pub fn sqlite() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    Opened { store: store::open(&at(&dir.path().join("users.db"))).unwrap(), _dir: Some(dir) }
}

/// A store on a database of its own. Blocks, so not for a runtime with one thread.
pub fn postgres() -> Opened {
    block_in_place(|| {
        let config = Handle::current().block_on(database::shared().fresh());
        Opened { store: store::open(&config).unwrap(), _dir: None }
    })
}

/// The same, where transactions take turns on the connections of a pooler.
pub fn postgres_behind_a_pooler() -> Opened {
    block_in_place(|| {
        let config = Handle::current().block_on(pgbouncer::shared().fresh());
        Opened { store: store::open(&config).unwrap(), _dir: None }
    })
}

/// The configuration of a `SQLite` store in this file.
pub fn at(path: &Path) -> Config {
    Config { store_url: StoreUrl::Sqlite(path.into()), ..Config::default() }
}

pub fn id(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub fn email(local: &str) -> Email {
    Email::parse(&format!("{local}@example.com")).unwrap()
}

pub fn fields(name: &str, local: &str) -> Fields {
    Fields { name: Name::parse(name).unwrap(), email: email(local), age: Age::parse(36).unwrap() }
}

/// Other fields than those of [`fields`], each of them.
pub fn other_fields() -> Fields {
    Fields { name: Name::parse("Other").unwrap(), email: email("other"), age: Age::parse(99).unwrap() }
}

/// A patch that sets every field.
pub fn patch_of(fields: Fields) -> Patch {
    let Fields { name, email, age } = fields;
    Patch { name: Some(name), email: Some(email), age: Some(age) }
}

/// Whether each field differs.
pub fn differ_in_each(a: &Fields, b: &Fields) -> bool {
    let Fields { name, email, age } = a;
    *name != b.name && *email != b.email && *age != b.age
}

/// A user called as their id and their address are.
pub fn create(name: &str) -> Change {
    Change::Create { id: id(name), fields: fields(name, name) }
}

/// The user of this id gets another address.
pub fn rename(user: &str, address: &str) -> Change {
    let patch = Patch { email: Some(email(address)), ..Patch::default() };
    Change::Update { id: id(user), patch, etag: None }
}

pub fn delete(name: &str) -> Change {
    Change::Delete { id: id(name), etag: None, allow_missing: false }
}

pub fn plain(change: Change) -> Write {
    Write { change, idempotency: None, validate_only: false }
}

/// A write that can be repeated; `payload` stands for what was asked for.
pub fn repeatable(change: Change, request: u8, payload: &str) -> Write {
    let request = RequestId::parse(&format!("01890a5d-ac96-774b-bcce-b302099a80{request:02x}")).unwrap();
    let idempotency = Idempotency::new(&Caller::ANONYMOUS, "Write", request, payload.as_bytes());
    Write { change, idempotency: Some(idempotency), validate_only: false }
}

pub async fn write(store: &Arc<dyn Store>, change: Change) -> Result<WriteResult, Error> {
    store.write(plain(change), Deadline::NONE).await
}

/// The user that a write that works leaves.
pub async fn stored(store: &Arc<dyn Store>, change: Change) -> User {
    write(store, change).await.unwrap().user.unwrap()
}

pub async fn get(store: &Arc<dyn Store>, name: &str) -> Option<User> {
    store.get(&UserKey::Id(id(name)), Deadline::NONE).await.unwrap().map(Arc::unwrap_or_clone)
}

pub async fn get_by_email(store: &Arc<dyn Store>, local: &str) -> Option<User> {
    store.get(&UserKey::Email(email(local)), Deadline::NONE).await.unwrap().map(Arc::unwrap_or_clone)
}
