//! The fields of a user between messages and the domain, both ways.
//!
//! **Invariant:** every pattern of a message here names each of its fields, so a new one
//! does not compile until it is read and returned.

use crate::{
    domain::{Age, Email, Fields, Name, Patch, User},
    proto::user::v1 as pb,
    service::{convert::timestamp, violations::Violations},
};

/// A user as answers have it.
pub fn message(user: &User) -> pb::User {
    let User { id, fields: Fields { name, email, age }, revision: _, create_time, update_time } = user;
    pb::User {
        name: name.as_str().into(),
        email: email.as_str().into(),
        age: age.years().into(),
        id: id.as_str().into(),
        etag: user.etag().into(),
        create_time: Some(timestamp(*create_time)),
        update_time: Some(timestamp(*update_time)),
    }
}

/// All that a caller says of a user; `None` only after a violation was noted.
pub fn parse(violations: &mut Violations, user: &pb::User) -> Option<Fields> {
    let pb::User { name, email, age, id: _, etag: _, create_time: _, update_time: _ } = user;
    let name = violations.check("user.name", Name::parse(name));
    let email = violations.check("user.email", Email::parse(email));
    let age = violations.check("user.age", Age::parse(*age));
    Some(Fields { name: name?, email: email?, age: age? })
}

/// The most paths in a mask: more than a user has fields, and few enough to hold
/// on to while the store works.
const MAX_PATHS: usize = 32;

/// Which fields an update writes.
#[derive(Clone, Copy, Default)]
pub struct Mask {
    name: bool,
    email: bool,
    age: bool,
}

impl Mask {
    /// Reads the mask; without one (or with an empty one, which many clients cannot
    /// tell from none) every populated field is written. An age of 0 is not populated:
    /// to write it, name it.
    pub fn parse(violations: &mut Violations, request: &pb::UpdateUserRequest) -> Self {
        let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return request.user.as_ref().map(Self::of_populated).unwrap_or_default();
        }
        if paths.len() > MAX_PATHS {
            violations.add("update_mask", format!("must have at most {MAX_PATHS} paths"));
            return Self::default();
        }
        let mut known = [false; MAX_PATHS];
        let mut has = |field: &str| {
            let places = paths.iter().zip(&mut known).filter(|(path, _)| *path == field);
            places.map(|(_, known)| *known = true).count() > 0
        };
        for ignored in ["id", "etag", "create_time", "update_time"] {
            has(ignored);
        }
        let all = has("*");
        let mut writes = |field| has(field) || all;
        let mask = Self { name: writes("name"), email: writes("email"), age: writes("age") };
        for (i, _) in paths.iter().zip(known).enumerate().filter(|(_, (_, known))| !known) {
            violations.add(format!("update_mask.paths[{i}]"), "must be '*' or a field of User");
        }
        mask
    }

    fn of_populated(user: &pb::User) -> Self {
        let pb::User { name, email, age, id: _, etag: _, create_time: _, update_time: _ } = user;
        Self { name: !name.is_empty(), email: !email.is_empty(), age: *age != 0 }
    }

    /// The values of these fields; one is missing only after a violation was noted.
    pub fn patch(self, violations: &mut Violations, user: &pb::User) -> Patch {
        let Self { name, email, age } = self;
        let name = name.then(|| violations.check("user.name", Name::parse(&user.name)));
        let email = email.then(|| violations.check("user.email", Email::parse(&user.email)));
        let age = age.then(|| violations.check("user.age", Age::parse(user.age)));
        Patch { name: name.flatten(), email: email.flatten(), age: age.flatten() }
    }
}
