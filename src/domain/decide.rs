//! The rules of writing, the same for every store.

use super::{Change, Error, Etag, Fields, Revision, Timestamp, UniqueKey, User, UserId};

/// What a change does to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store a user that was not there.
    Create(User),
    /// Store a user in place of the one with its id.
    Update(User),
    /// Remove the user with this id.
    Delete(UserId),
    /// Nothing is to be done, and that is what was asked for.
    Nothing,
}

/// Says what `change` does, or why it may not be done.
///
/// - `current`: the user that [`Change::target`] names, if there is one
/// - `email_owner`: the user that has the address of [`Change::email`]
/// - `revision`: what this write is numbered if it has an effect
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::NotFound`] or [`Error::EtagMismatch`].
pub fn decide(
    change: &Change,
    current: Option<&User>,
    email_owner: Option<&UserId>,
    revision: Revision,
    now: Timestamp,
) -> Result<Effect, Error> {
    let create = |id: &UserId, fields: &Fields, create_time: Timestamp| {
        if email_owner.is_some() {
            return Err(Error::AlreadyExists(UniqueKey::Email));
        }
        Ok(Effect::Create(User {
            id: id.clone(),
            fields: fields.clone(),
            revision,
            create_time,
            update_time: now.max(create_time),
        }))
    };
    let replace = |current: &User, fields: Fields| {
        if email_owner.is_some_and(|owner| *owner != current.id) {
            return Err(Error::AlreadyExists(UniqueKey::Email));
        }
        // A clock that was set back must not make an update older than its user.
        let update_time = now.max(current.update_time);
        Ok(Effect::Update(User {
            id: current.id.clone(),
            fields,
            revision,
            create_time: current.create_time,
            update_time,
        }))
    };
    match (change, current) {
        (Change::Create { .. }, Some(_)) => Err(Error::AlreadyExists(UniqueKey::Id)),
        (Change::Create { id, fields } | Change::Upsert { id: Some(id), fields, .. }, None) => {
            create(id, fields, now)
        }
        (Change::Upsert { id: None, new_id, fields }, None) => create(new_id, fields, now),
        (Change::Import { id, new_id, fields, create_time }, None) => {
            create(id.as_ref().unwrap_or(new_id), fields, create_time.unwrap_or(now))
        }
        (Change::Import { id, fields, create_time, .. }, Some(user)) => {
            if is_same(user, fields, *create_time) {
                return Ok(Effect::Nothing);
            }
            Err(Error::AlreadyExists(if id.is_some() { UniqueKey::Id } else { UniqueKey::Email }))
        }
        (Change::Upsert { fields, .. }, Some(user)) => {
            replace(user, user.fields.overwritten_by_article(fields))
        }
        (Change::Update { patch, etag, .. }, Some(user)) => {
            check(*etag, user)?;
            replace(user, user.fields.patched(patch))
        }
        (Change::Delete { etag, .. }, Some(user)) => {
            check(*etag, user)?;
            Ok(Effect::Delete(user.id.clone()))
        }
        (Change::Delete { allow_missing: true, .. }, None) => Ok(Effect::Nothing),
        (Change::Update { .. } | Change::Delete { .. }, None) => Err(Error::NotFound(UniqueKey::Id)),
    }
}

/// Whether a stored user is what an import brings, in all that it brings.
fn is_same(user: &User, fields: &Fields, create_time: Option<Timestamp>) -> bool {
    user.fields == *fields && create_time.is_none_or(|time| time == user.create_time)
}

fn check(etag: Option<Etag>, user: &User) -> Result<(), Error> {
    match etag {
        Some(etag) if etag != user.etag() => Err(Error::EtagMismatch),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Email, Patch};

    fn id(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn fields(email: &str) -> Fields {
        Fields::example(email)
    }

    fn user(user_id: &str, email: &str) -> User {
        let time = Timestamp::from_micros(1_000);
        User { id: id(user_id), fields: fields(email), revision: 7, create_time: time, update_time: time }
    }

    fn run(change: &Change, current: Option<&User>, owner: Option<&UserId>) -> Result<Effect, Error> {
        decide(change, current, owner, 9, Timestamp::from_micros(500))
    }

    #[test]
    fn an_address_has_one_owner() {
        let ada = user("ada", "ada@example.com");
        let taken = |change: &Change, current, owner: &UserId| {
            matches!(run(change, current, Some(owner)), Err(Error::AlreadyExists(UniqueKey::Email)))
        };
        let patch = Patch { email: Some(Email::parse("bob@example.com").unwrap()), ..Patch::default() };
        assert!(taken(
            &Change::Create { id: id("new"), fields: fields("bob@example.com") },
            None,
            &id("bob")
        ));
        assert!(taken(
            &Change::Upsert { id: Some(id("new")), new_id: id("x"), fields: fields("bob@example.com") },
            None,
            &id("bob")
        ));
        assert!(taken(
            &Change::Upsert { id: Some(id("ada")), new_id: id("x"), fields: fields("bob@example.com") },
            Some(&ada),
            &id("bob")
        ));
        assert!(taken(&Change::Update { id: id("ada"), patch, etag: None }, Some(&ada), &id("bob")));
        // Its own address is no conflict.
        assert!(
            run(
                &Change::Upsert { id: None, new_id: id("x"), fields: fields("ada@example.com") },
                Some(&ada),
                Some(&id("ada"))
            )
            .is_ok()
        );
    }

    #[test]
    fn an_overwritten_user_keeps_its_id_and_create_time() {
        let ada = user("ada", "ada@example.com");
        let put = Change::Upsert { id: None, new_id: id("x"), fields: fields("ada@example.com") };
        let Ok(Effect::Update(after)) = run(&put, Some(&ada), Some(&id("ada"))) else {
            panic!("not an update")
        };
        assert_eq!((after.id, after.create_time, after.revision), (id("ada"), ada.create_time, 9));
        assert_eq!(
            after.update_time, ada.update_time,
            "a clock set back never takes the update time with it"
        );
    }

    #[test]
    fn an_import_creates_or_finds_its_user_and_overwrites_nobody() {
        let ada = user("ada", "ada@example.com");
        let import = |given: Option<&str>, email: &str, create_time: Option<i64>| Change::Import {
            id: given.map(id),
            new_id: id("new"),
            fields: fields(email),
            create_time: create_time.map(Timestamp::from_micros),
        };
        let created = |change: &Change| match run(change, None, None) {
            Ok(Effect::Create(user)) => (user.id, user.create_time.as_micros(), user.update_time.as_micros()),
            other => panic!("{other:?}"),
        };
        assert_eq!(created(&import(Some("bob"), "bob@example.com", Some(7))), (id("bob"), 7, 500));
        assert_eq!(created(&import(None, "bob@example.com", None)), (id("new"), 500, 500));
        assert_eq!(created(&import(None, "bob@example.com", Some(900))), (id("new"), 900, 900));

        let owner = id("ada");
        for given in [Some("ada"), None] {
            for time in [Some(1_000), None] {
                let same = run(&import(given, "ada@example.com", time), Some(&ada), Some(&owner));
                assert_eq!(same.unwrap(), Effect::Nothing);
            }
            let resource = if given.is_some() { UniqueKey::Id } else { UniqueKey::Email };
            let other = run(&import(given, "ada@example.com", Some(1_001)), Some(&ada), Some(&owner));
            assert!(matches!(other, Err(Error::AlreadyExists(found)) if found == resource), "{other:?}");
        }
        let taken = run(&import(Some("bob"), "ada@example.com", None), None, Some(&owner));
        assert!(matches!(taken, Err(Error::AlreadyExists(UniqueKey::Email))));
    }

    #[test]
    fn a_stale_etag_stops_an_update_and_a_delete() {
        let ada = user("ada", "ada@example.com");
        let stale = Some(Etag::parse("\"6\"").unwrap());
        let fresh = Some(ada.etag());
        for (etag, ok) in [(None, true), (fresh, true), (stale, false)] {
            let update = Change::Update { id: id("ada"), patch: Patch::default(), etag };
            let delete = Change::Delete { id: id("ada"), etag, allow_missing: false };
            assert_eq!(run(&update, Some(&ada), None).is_ok(), ok);
            assert_eq!(run(&delete, Some(&ada), None).is_ok(), ok);
        }
    }

    #[test]
    fn a_missing_user_can_be_put_and_not_updated() {
        let missing =
            |change: &Change| matches!(run(change, None, None), Err(Error::NotFound(UniqueKey::Id)));
        assert!(missing(&Change::Update { id: id("a"), patch: Patch::default(), etag: None }));
        assert!(missing(&Change::Delete { id: id("a"), etag: None, allow_missing: false }));
        assert_eq!(
            run(&Change::Delete { id: id("a"), etag: None, allow_missing: true }, None, None).unwrap(),
            Effect::Nothing
        );
        let put = |given| Change::Upsert { id: given, new_id: id("new"), fields: fields("a@example.com") };
        assert!(matches!(run(&put(None), None, None), Ok(Effect::Create(user)) if user.id == id("new")));
        assert!(
            matches!(run(&put(Some(id("a"))), None, None), Ok(Effect::Create(user)) if user.id == id("a"))
        );
    }
}
