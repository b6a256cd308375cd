//! What a write does and what reads see of it.

use std::{sync::Arc, time::Instant};

use crate::fixtures::{
    create, delete, differ_in_each, email, fields, get, get_by_email, id, other_fields, patch_of, plain,
    rename, stored, write,
};
use user_service::domain::{
    Age, Change, Deadline, Error, Fields, PageSize, Patch, Store, StoreHealth, UniqueKey, UserKey, Write,
};

pub async fn a_created_user_is_found_by_id_and_by_address(store: Arc<dyn Store>) {
    let ada = stored(&store, create("ada")).await;
    assert_eq!(ada.fields.name.as_str(), "ada");
    assert_eq!(ada.create_time, ada.update_time);
    assert_eq!(get(&store, "ada").await, Some(ada.clone()));
    assert_eq!(get_by_email(&store, "ada").await, Some(ada));
    assert_eq!(get(&store, "bob").await, None);
    assert_eq!(get_by_email(&store, "bob").await, None);
}

pub async fn an_id_or_an_address_is_taken_once(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    stored(&store, create("bob")).await;
    let same_id = write(&store, Change::Create { id: id("ada"), fields: fields("x", "x") }).await;
    assert!(matches!(same_id, Err(Error::AlreadyExists(UniqueKey::Id))), "{same_id:?}");
    for change in [Change::Create { id: id("x"), fields: fields("x", "ada") }, rename("bob", "ada")] {
        let same_address = write(&store, change).await;
        assert!(matches!(same_address, Err(Error::AlreadyExists(UniqueKey::Email))), "{same_address:?}");
    }
    assert_eq!(get(&store, "x").await, None);
    assert_eq!(get(&store, "bob").await.unwrap().fields.email, email("bob"));
}

pub async fn a_put_overwrites_by_id_or_by_address_or_creates(store: Arc<dyn Store>) {
    let put = |by: Option<&str>, new: &str, name: &str, address: &str| Change::Upsert {
        id: by.map(id),
        new_id: id(new),
        fields: fields(name, address),
    };
    let created = stored(&store, put(None, "new-1", "Ada", "ada")).await;
    assert_eq!(created.id, id("new-1"));
    let by_address = stored(&store, put(None, "new-2", "Ada L", "ada")).await;
    assert_eq!((by_address.id, by_address.create_time), (id("new-1"), created.create_time));
    let by_id = stored(&store, put(Some("new-1"), "new-3", "Ada", "countess")).await;
    assert_eq!((by_id.id, by_id.fields.email), (id("new-1"), email("countess")));
    assert_eq!(stored(&store, put(Some("own"), "new-4", "Bob", "bob")).await.id, id("own"));
    let taken = write(&store, put(Some("own"), "new-5", "Bob", "countess")).await;
    assert!(matches!(taken, Err(Error::AlreadyExists(UniqueKey::Email))), "{taken:?}");
    assert_eq!(get_by_email(&store, "ada").await, None);
}

pub async fn an_update_changes_what_it_names(store: Arc<dyn Store>) {
    let before = stored(&store, create("ada")).await;
    let patch = Patch { age: Some(Age::parse(37).unwrap()), ..Patch::default() };
    let after = stored(&store, Change::Update { id: id("ada"), patch, etag: Some(before.etag()) }).await;
    assert_eq!(after.fields, Fields { age: Age::parse(37).unwrap(), ..before.fields.clone() });
    assert_eq!(after.create_time, before.create_time);
    assert!(after.update_time >= before.update_time && after.etag() != before.etag());
    assert_eq!(get(&store, "ada").await, Some(after));
    let missing = write(&store, rename("bob", "bob")).await;
    assert!(matches!(missing, Err(Error::NotFound(UniqueKey::Id))), "{missing:?}");
}

pub async fn every_field_is_stored_by_each_kind_of_write_and_found_by_each_read(store: Arc<dyn Store>) {
    let (before, after) = (fields("ada", "ada"), other_fields());
    assert!(differ_in_each(&before, &after));
    let patch = patch_of(after.clone());
    for change in [
        Change::Create { id: id("ada"), fields: before.clone() },
        Change::Update { id: id("ada"), patch, etag: None },
        Change::Upsert { id: Some(id("ada")), new_id: id("new"), fields: before.clone() },
        Change::Delete { id: id("ada"), etag: None, allow_missing: false },
        Change::Import { id: Some(id("ada")), new_id: id("new"), fields: after.clone(), create_time: None },
    ] {
        let expected = match &change {
            Change::Delete { .. } => None,
            Change::Create { .. } => Some(&before),
            Change::Update { .. } | Change::Import { .. } => Some(&after),
            // It keeps what the article's contract does not name.
            Change::Upsert { .. } => Some(&after.overwritten_by_article(&before)),
        };
        let written = write(&store, change.clone()).await.unwrap();
        let stored = written.user.as_ref();
        assert_eq!(stored.map(|user| &user.fields), expected, "{change:?}");
        assert_eq!(get(&store, "ada").await.as_ref(), stored);
        let found = store.batch_get(&[id("ada")], Deadline::NONE).await.unwrap().swap_remove(0);
        assert_eq!(found.as_ref(), stored);
        let page = store.list(None, PageSize::parse(10).unwrap(), Deadline::NONE).await.unwrap();
        assert_eq!(page.users.first(), stored);
        let logged = store.changes(written.revision - 1, 1, Deadline::NONE).await.unwrap();
        assert_eq!(logged[0].event.user(), stored);
        if let Some(user) = stored {
            let key = UserKey::Email(user.fields.email.clone());
            assert_eq!(store.get(&key, Deadline::NONE).await.unwrap().as_deref(), stored);
        }
    }
}

pub async fn an_address_that_was_given_up_is_free(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    let moved = stored(&store, rename("ada", "countess")).await;
    assert_eq!(get_by_email(&store, "ada").await, None);
    assert_eq!(get_by_email(&store, "countess").await, Some(moved));
    let bob = stored(&store, Change::Create { id: id("bob"), fields: fields("Bob", "ada") }).await;
    assert_eq!(get_by_email(&store, "ada").await, Some(bob));
    write(&store, delete("ada")).await.unwrap();
    stored(&store, rename("bob", "countess")).await;
}

pub async fn a_stale_etag_writes_nothing(store: Arc<dyn Store>) {
    let stale = stored(&store, create("ada")).await.etag();
    let now = stored(&store, rename("ada", "countess")).await;
    let update = Change::Update { id: id("ada"), patch: Patch::default(), etag: Some(stale) };
    let remove = Change::Delete { id: id("ada"), etag: Some(stale), allow_missing: true };
    for change in [update, remove] {
        let refused = write(&store, change).await;
        assert!(matches!(refused, Err(Error::EtagMismatch)), "{refused:?}");
    }
    assert_eq!(get(&store, "ada").await, Some(now.clone()));
    write(&store, Change::Delete { id: id("ada"), etag: Some(now.etag()), allow_missing: false })
        .await
        .unwrap();
}

pub async fn a_deleted_user_is_gone(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    let written = write(&store, delete("ada")).await.unwrap();
    assert_eq!((written.user, written.revision), (None, 2));
    assert_eq!(get(&store, "ada").await, None);
    assert_eq!(get_by_email(&store, "ada").await, None);
    stored(&store, create("ada")).await;
}

pub async fn only_a_lenient_delete_takes_a_missing_user(store: Arc<dyn Store>) {
    let strict = write(&store, delete("ada")).await;
    assert!(matches!(strict, Err(Error::NotFound(UniqueKey::Id))), "{strict:?}");
    let lenient = Change::Delete { id: id("ada"), etag: None, allow_missing: true };
    let written = write(&store, lenient).await.unwrap();
    assert_eq!((written.user, written.revision), (None, 0));
}

pub async fn validation_alone_writes_nothing(store: Arc<dyn Store>) {
    let validate = |change| Write { validate_only: true, ..plain(change) };
    let would_be = store.write(validate(create("ada")), Deadline::NONE).await.unwrap();
    assert_eq!((would_be.user.unwrap().fields.email, would_be.revision), (email("ada"), 0));
    assert_eq!(get(&store, "ada").await, None);
    assert_eq!(stored(&store, create("ada")).await.revision, 1);
    let refused = store.write(validate(create("ada")), Deadline::NONE).await;
    assert!(matches!(refused, Err(Error::AlreadyExists(UniqueKey::Id))), "{refused:?}");
}

pub async fn revisions_count_every_write_without_gaps(store: Arc<dyn Store>) {
    let many: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { stored(&store, create(&format!("user-{n}"))).await.revision })
        })
        .collect();
    let mut revisions = Vec::new();
    for revision in many {
        revisions.push(revision.await.unwrap());
    }
    // What fails takes no number.
    write(&store, create("user-0")).await.unwrap_err();
    revisions.push(write(&store, delete("user-0")).await.unwrap().revision);
    let last = revisions.last().copied();
    revisions.sort_unstable();
    assert_eq!((revisions, last), ((1..=51).collect(), Some(51)));
}

pub async fn an_id_made_anew_has_another_etag(store: Arc<dyn Store>) {
    let before = stored(&store, create("ada")).await.etag();
    write(&store, delete("ada")).await.unwrap();
    assert_ne!(stored(&store, create("ada")).await.etag(), before);
}

pub async fn what_is_only_validated_gives_no_etag_of_a_write_to_come(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    let validate = Write { validate_only: true, ..plain(rename("ada", "countess")) };
    let would_be = store.write(validate, Deadline::NONE).await.unwrap().user.unwrap().etag();
    stored(&store, rename("ada", "lady")).await;
    let update = Change::Update { id: id("ada"), patch: Patch::default(), etag: Some(would_be) };
    let refused = write(&store, update).await;
    assert!(matches!(refused, Err(Error::EtagMismatch)), "{refused:?}");
}

pub async fn a_late_call_is_not_begun(store: Arc<dyn Store>) {
    let over = Deadline::at(Instant::now());
    let late = |answer: Option<Error>| assert!(matches!(answer, Some(Error::DeadlineExceeded)), "{answer:?}");
    late(store.write(plain(create("ada")), over).await.err());
    late(store.get(&UserKey::Id(id("ada")), over).await.err());
    late(store.batch_get(&[id("ada")], over).await.err());
    for size in [1, 1_000] {
        late(store.list(None, PageSize::parse(size).unwrap(), over).await.err());
    }
    assert_eq!(get(&store, "ada").await, None);
}

/// A write whose caller goes away is applied whole or not at all, and the next
/// one does not mind.
pub async fn a_write_goes_on_without_its_caller(store: Arc<dyn Store>) {
    for n in 0..50 {
        let name = format!("user-{n}");
        let write = store.write(plain(create(&name)), Deadline::NONE);
        // Asked once and dropped: begun, or about to be.
        let _ = futures_util::FutureExt::now_or_never(write);
    }
    stored(&store, create("last")).await;
    for n in 0..50 {
        let name = format!("user-{n}");
        assert_eq!(get(&store, &name).await, get_by_email(&store, &name).await);
    }
}

pub async fn a_closed_store_fails_every_call(store: Arc<dyn Store>) {
    stored(&store, create("ada")).await;
    store.close().await;
    store.close().await;
    let closed = |answer: Option<Error>| assert!(matches!(answer, Some(Error::Unavailable(_))), "{answer:?}");
    closed(write(&store, create("bob")).await.err());
    closed(store.get(&UserKey::Id(id("ada")), Deadline::NONE).await.err());
    closed(store.batch_get(&[id("ada")], Deadline::NONE).await.err());
    closed(store.list(None, PageSize::parse(0).unwrap(), Deadline::NONE).await.err());
    assert_eq!(store.probe().await, StoreHealth { reads: false, writes: false });
}

pub async fn an_open_store_says_that_it_works(store: Arc<dyn Store>) {
    assert_eq!(store.probe().await, StoreHealth { reads: true, writes: true });
}
