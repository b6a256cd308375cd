//! Writes that are repeated.

use std::sync::Arc;

use crate::fixtures::{create, delete, email, fields, get, id, repeatable, stored, write};
use user_service::domain::{Change, Deadline, Error, Patch, Store, UniqueKey, Write, WriteResult};

async fn send(store: &Arc<dyn Store>, write: &Write) -> Result<WriteResult, Error> {
    store.write(write.clone(), Deadline::NONE).await
}

pub async fn a_repeat_returns_the_user_as_it_was_left(store: Arc<dyn Store>) {
    // The server makes up an id for each attempt; the first one counts.
    let attempt =
        |new: &str| repeatable(Change::Create { id: id(new), fields: fields("Ada", "ada") }, 1, "ada");
    let first = send(&store, &attempt("first")).await.unwrap();
    assert_eq!(send(&store, &attempt("second")).await.unwrap(), first);
    let patch = Patch { email: Some(email("countess")), ..Patch::default() };
    stored(&store, Change::Update { id: id("first"), patch, etag: None }).await;
    assert_eq!(send(&store, &attempt("third")).await.unwrap(), first);
    write(&store, delete("first")).await.unwrap();
    assert_eq!(send(&store, &attempt("fourth")).await.unwrap(), first);
    for name in ["first", "second", "third", "fourth"] {
        assert_eq!(get(&store, name).await, None);
    }
}

pub async fn a_repeated_delete_succeeds_and_deletes_nothing(store: Arc<dyn Store>) {
    let strict = repeatable(delete("ada"), 1, "delete ada");
    let lenient = Change::Delete { id: id("bob"), etag: None, allow_missing: true };
    let lenient = repeatable(lenient, 2, "delete bob if there");
    stored(&store, create("ada")).await;
    let (first, nothing) = (send(&store, &strict).await.unwrap(), send(&store, &lenient).await.unwrap());
    let users = [stored(&store, create("ada")).await, stored(&store, create("bob")).await];
    assert_eq!(send(&store, &strict).await.unwrap(), first);
    assert_eq!(send(&store, &lenient).await.unwrap(), nothing);
    assert_eq!([get(&store, "ada").await.unwrap(), get(&store, "bob").await.unwrap()], users);
}

pub async fn a_repeat_is_known_before_its_etag_is_checked(store: Arc<dyn Store>) {
    let etag = Some(stored(&store, create("ada")).await.etag());
    let patch = Patch { email: Some(email("countess")), ..Patch::default() };
    let update = repeatable(Change::Update { id: id("ada"), patch, etag }, 1, "update");
    let first = send(&store, &update).await.unwrap();
    assert_eq!(send(&store, &update).await.unwrap(), first);
    let etag = Some(first.user.unwrap().etag());
    let remove = repeatable(Change::Delete { id: id("ada"), etag, allow_missing: false }, 2, "delete");
    let first = send(&store, &remove).await.unwrap();
    assert_eq!(send(&store, &remove).await.unwrap(), first);
}

pub async fn a_request_id_serves_one_payload(store: Arc<dyn Store>) {
    send(&store, &repeatable(create("ada"), 1, "ada")).await.unwrap();
    let reused = send(&store, &repeatable(create("bob"), 1, "bob")).await;
    assert!(matches!(reused, Err(Error::RequestIdReused)), "{reused:?}");
    assert_eq!(get(&store, "bob").await, None);
    send(&store, &repeatable(create("bob"), 2, "bob")).await.unwrap();
}

pub async fn a_failure_is_not_recorded(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    let again = repeatable(create("ada"), 1, "ada");
    let taken = send(&store, &again).await;
    assert!(matches!(taken, Err(Error::AlreadyExists(UniqueKey::Id))), "{taken:?}");
    write(&store, delete("ada")).await.unwrap();
    send(&store, &again).await.unwrap();
    assert!(get(&store, "ada").await.is_some());
}

pub async fn a_validation_is_not_recorded(store: Arc<dyn Store>) {
    let real = repeatable(create("ada"), 1, "ada");
    send(&store, &Write { validate_only: true, ..real.clone() }).await.unwrap();
    send(&store, &real).await.unwrap();
    assert!(get(&store, "ada").await.is_some());
}

pub async fn repeats_at_once_write_once(store: Arc<dyn Store>) {
    let attempts: Vec<_> = (0..20)
        .map(|n| {
            let change = Change::Create { id: id(&format!("attempt-{n}")), fields: fields("Ada", "ada") };
            let (store, write) = (store.clone(), repeatable(change, 1, "ada"));
            tokio::spawn(async move { send(&store, &write).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for attempt in attempts {
        answers.push(attempt.await.unwrap());
    }
    assert_eq!(answers[0].revision, 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(stored(&store, create("bob")).await.revision, 2);
}
