//! Turns domain errors into statuses: the one place that does.

use std::fmt::Write as _;

use tonic::Status;
use tonic_types::FieldViolation;

use super::error_log;
use crate::{
    domain::{Error, UniqueKey, Violation},
    rpc::{
        reasons::{self, Reason},
        status::{
            bad_request, deadline_exceeded, has_room, info, internal, overloaded_for, plain, with_details,
        },
    },
};

/// The resource type in every `ResourceInfo`.
pub const RESOURCE_TYPE: &str = "user.v1.User";

/// The status of a domain error.
pub fn from_error(error: Error) -> Status {
    for_user(error, "")
}

/// The status of a domain error about the user with this id, as the caller sent it.
pub fn for_user(error: Error, id: &str) -> Status {
    error_log::log(&error);
    match error {
        Error::Invalid { listed, total } => invalid(listed, total),
        Error::RequestIdReused => bad_request(
            &reasons::REQUEST_ID_REUSED,
            "the request id was used for another request",
            "request_id",
            "must be new for every request that differs",
        ),
        Error::NotFound(resource) => resource_error(&reasons::USER_NOT_FOUND, "no such user", resource, id),
        Error::AlreadyExists(resource) => {
            let message = match resource {
                UniqueKey::Id => "a user with this id exists already",
                UniqueKey::Email => "a user with this email exists already",
            };
            resource_error(&reasons::USER_ALREADY_EXISTS, message, resource, id)
        }
        Error::EtagMismatch => plain(
            &reasons::ETAG_MISMATCH,
            "the user has changed since its etag was read: read it again, then repeat",
        ),
        Error::ResumeTokenExpired => plain(
            &reasons::RESUME_TOKEN_EXPIRED,
            "the change log does not hold what follows this token: begin anew, with initial_state",
        ),
        Error::DeadlineExceeded => deadline_exceeded(),
        Error::Overloaded { retry_delay } => overloaded_for(retry_delay),
        Error::Unavailable(_) => {
            plain(&reasons::STORE_UNAVAILABLE, "the store is unavailable; nothing was applied")
        }
        Error::OutcomeUnknown => plain(
            &reasons::OUTCOME_UNKNOWN,
            "whether the write was applied is unknown: read the user to find out",
        ),
        Error::RefusedByStore(_) => plain(
            &reasons::REFUSED_BY_STORE,
            "a rule that was added to the database refuses this user; nothing was applied",
        ),
        Error::Internal(_) => internal(),
    }
}

/// An unknown outcome that the caller can settle by repeating the very same
/// call, for it carried a request id.
pub fn safe_to_repeat() -> Status {
    error_log::log(&Error::OutcomeUnknown);
    plain(
        &reasons::OUTCOME_UNKNOWN_REPEATABLE,
        "whether the write was applied is unknown: repeat it with the same request_id",
    )
}

fn invalid(listed: Vec<Violation>, total: usize) -> Status {
    let reason = &reasons::INVALID_FIELDS;
    // The message has room for all that a request without repeated fields can break.
    let mut message = String::from("the request is invalid: ");
    let mut named = 0;
    for Violation { field, description } in &listed {
        let separator = if named == 0 { "" } else { "; " };
        let next = format!("{separator}{field} {description}");
        if !has_room(&message, &next) {
            break;
        }
        message.push_str(&next);
        named += 1;
    }
    if total > named {
        let _ = write!(message, "; and {} more", total - named);
    }
    let omitted = (total - listed.len()).to_string();
    let mut details = if total > listed.len() {
        info(reason, [("omitted_violations", &omitted)])
    } else {
        info(reason, [])
    };
    let fields: Vec<_> = listed.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect();
    details.set_bad_request(fields);
    with_details(reason, &message, details)
}

/// `id` names the resource where it is known by its id; where it is known by its
/// e-mail address only the field is named.
fn resource_error(reason: &Reason, message: &str, resource: UniqueKey, id: &str) -> Status {
    let (field, name) = match resource {
        UniqueKey::Id => ("id", id),
        UniqueKey::Email => ("email", "email"),
    };
    let mut details = info(reason, [("field", field)]);
    details.set_resource_info(RESOURCE_TYPE, name, "", message);
    with_details(reason, message, details)
}

#[cfg(test)]
mod tests;
