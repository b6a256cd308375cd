//! Every machine-readable reason of an error, which docs/API.md is written from.
//!
//! A reason is a public contract: clients branch on it. It has one row for each code that
//! it comes with.

use std::time::Duration;

use tonic::Code;

/// What every error with this reason shares.
#[derive(Debug)]
pub struct Reason {
    /// In `google.rpc.ErrorInfo`.
    pub name: &'static str,
    /// `None`: of any code.
    pub code: Option<Code>,
    /// When the call may be repeated, in milliseconds: in `google.rpc.RetryInfo` and in
    /// `grpc-retry-pushback-ms`. `None` where repeating the same call is of no use, or of
    /// no use by itself.
    retry_after_ms: Option<u64>,
    /// When it comes, and what a client does, as sentences for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the documentation"))]
    documented: (&'static str, &'static str),
}

impl Reason {
    /// When the call may be repeated.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }
}

/// A caller that was turned away repeats its call after calls in flight have ended, and
/// before a person notices.
const OVERLOAD_MS: u64 = 500;

/// A store that opens, or is full, is looked at so often.
const STORE_MS: u64 = 1_000;

/// After so long a caller that was over its share has a second's calls again.
const QUOTA_MS: u64 = 1_000;

/// Makes the reasons, and the table of all of them, from rows of
/// `CONSTANT "NAME" [Code] [retry after] "when" "action"`.
macro_rules! reasons {
    ($($constant:ident $name:literal [$($code:ident)?] [$($retry:expr)?] $when:literal $action:literal;)+) => {
        $(pub static $constant: Reason = Reason {
            name: $name,
            code: reasons!(@option $(Code::$code)?),
            retry_after_ms: reasons!(@option $($retry)?),
            documented: ($when, $action),
        };)+

        /// Every reason, in the order of the documentation. Only for tests, so that the
        /// compiler finds a reason that no status has.
        #[cfg(test)]
        pub static REASONS: &[&Reason] = &[$(&$constant),+];
    };
    (@option) => { None };
    (@option $value:expr) => { Some($value) };
}

reasons! {
    INVALID_FIELDS "INVALID_FIELDS" [InvalidArgument] []
        "Fields of the request break a rule; `BadRequest` names each field and its rule."
        "Correct the request.";
    REQUEST_ID_REUSED "REQUEST_ID_REUSED" [InvalidArgument] []
        "The `request_id` was used for another request within the last 24 hours."
        "Choose a new `request_id` for each request that differs.";
    INVALID_TIMEOUT "INVALID_TIMEOUT" [InvalidArgument] []
        "`grpc-timeout` or `connect-timeout-ms` cannot be read."
        "Correct the client.";
    INVALID_CONTENT_TYPE "INVALID_CONTENT_TYPE" [InvalidArgument] []
        "The content type is none that is served under the path; the HTTP status is 415, and `accept-post` names those that are."
        "Use a client of gRPC, gRPC-Web or Connect.";
    MALFORMED_JSON "MALFORMED_JSON" [InvalidArgument] []
        "A message in JSON is not well-formed or not of the method's type; the error says where."
        "Correct the request.";
    MALFORMED_REQUEST "MALFORMED_REQUEST" [InvalidArgument] []
        "A header or a query parameter of Connect cannot be read; `BadRequest` names it."
        "Correct the client.";
    CREDENTIALS_MISSING "CREDENTIALS_MISSING" [Unauthenticated] []
        "The method needs an identity, and the call has neither a bearer token nor a client certificate."
        "Send a token in `authorization`, or connect with a client certificate.";
    CREDENTIALS_REJECTED "CREDENTIALS_REJECTED" [Unauthenticated] []
        "The token is not valid: it may have expired. The audit log of the server says why."
        "Get a new token.";
    NOT_PERMITTED "NOT_PERMITTED" [PermissionDenied] []
        "The caller may not call this method, or may not touch this record. Nothing was applied."
        "Ask the owner of the policy for a role.";
    USER_NOT_FOUND "USER_NOT_FOUND" [NotFound] []
        "There is no user with this id or address; `ResourceInfo` names the field."
        "Take the user for deleted, or never created.";
    UNKNOWN_HEALTH_NAME "UNKNOWN_HEALTH_NAME" [NotFound] []
        "`Check` of a health name that the server does not have."
        "Ask `List` for the names.";
    USER_ALREADY_EXISTS "USER_ALREADY_EXISTS" [AlreadyExists] []
        "A user with this id or address exists; `ResourceInfo` names the field."
        "Choose another one, or read the user who exists.";
    REFUSED_BY_STORE "REFUSED_BY_STORE" [FailedPrecondition] []
        "A rule that the owner of the database added refuses this user. Nothing was applied."
        "Ask the owner of the database; the log of the server names the rule.";
    ETAG_MISMATCH "ETAG_MISMATCH" [Aborted] []
        "The user has changed since its etag was read."
        "Read the user, decide anew, and repeat with the new etag.";
    RESUME_TOKEN_EXPIRED "RESUME_TOKEN_EXPIRED" [OutOfRange] []
        "The change log no longer holds what follows this `resume_token`, or the store is another one."
        "Begin a new watch with `initial_state`.";
    QUOTA "QUOTA" [ResourceExhausted] [QUOTA_MS]
        "The caller has more calls in flight, or more calls in a second, than its share. Nothing was applied."
        "Repeat the call after the delay in `RetryInfo`, and call less.";
    MESSAGE_TOO_LARGE "MESSAGE_TOO_LARGE" [ResourceExhausted] []
        "A message is larger than `max_request_bytes`, as sent or as unpacked."
        "Send less in one message.";
    ANSWERS_UNREAD "ANSWERS_UNREAD" [ResourceExhausted] []
        "The connection has as many bytes of answers waiting to be read as it may have."
        "Read the answers, or ask for smaller pages.";
    DEADLINE_EXCEEDED "DEADLINE_EXCEEDED" [DeadlineExceeded] []
        "The deadline passed before the call was done. A write may have been applied."
        "Repeat a read, or a write with the same `request_id`, under a new deadline.";
    REQUEST_INCOMPLETE "REQUEST_INCOMPLETE" [DeadlineExceeded] []
        "The message of a unary call was not whole in time. Nothing was applied."
        "Repeat the call under a new deadline, over a faster connection.";
    OUTCOME_UNKNOWN "OUTCOME_UNKNOWN" [Unknown] []
        "Whether a write without a `request_id` was applied is unknown."
        "Read the user to find out.";
    OUTCOME_UNKNOWN_REPEATABLE "OUTCOME_UNKNOWN" [Unavailable] [STORE_MS]
        "Whether a write with a `request_id` was applied is unknown."
        "Repeat it with the same `request_id`.";
    OVERLOADED "OVERLOADED" [Unavailable] [OVERLOAD_MS]
        "The server has more calls, or waiting writes or larger reads, than it can answer in time. Nothing was applied."
        "Repeat the call after the delay in `RetryInfo`; a write has one of its own.";
    STORE_UNAVAILABLE "STORE_UNAVAILABLE" [Unavailable] [STORE_MS]
        "The store cannot be reached or cannot be written. Nothing was applied."
        "Repeat the call.";
    STARTING "STARTING" [Unavailable] [STORE_MS]
        "The server does not have its store yet. Nothing was applied."
        "Repeat the call.";
    DRAINING "DRAINING" [Unavailable] [0]
        "The server ends this stream because it shuts down."
        "Call again over another connection; resume a watch from its last `resume_token`.";
    CONNECTION_AGED "CONNECTION_AGED" [Unavailable] [0]
        "The server ends this stream because its connection has reached its maximum age."
        "Call again over another connection; resume a watch from its last `resume_token`.";
    IMPORT_IDLE "IMPORT_IDLE" [Unavailable] [0]
        "An import sent no user for a while."
        "Call again with the users that were not answered.";
    WATCHER_TOO_SLOW "WATCHER_TOO_SLOW" [Unavailable] [0]
        "Users change faster than the watch is read."
        "Resume the watch from its last `resume_token`, and read faster.";
    MALFORMED_MESSAGE "MALFORMED_MESSAGE" [Internal] []
        "A message is cut short or not protobuf, or its compression cannot be read."
        "Correct the client.";
    SEVERAL_MESSAGES "SEVERAL_MESSAGES" [Unimplemented] []
        "There is more than one message where the method takes one."
        "Correct the client.";
    MISSING_MESSAGE "MISSING_MESSAGE" [Unimplemented] []
        "There is no message where the method takes one."
        "Correct the client.";
    UNKNOWN_ENCODING "UNKNOWN_ENCODING" [Unimplemented] []
        "A message is compressed with something else than gzip; `grpc-accept-encoding` says what may be used."
        "Compress with gzip, or not at all.";
    UNKNOWN_METHOD "UNKNOWN_METHOD" [Unimplemented] []
        "There is no such method, or it is switched off."
        "Correct the client, or ask a newer server.";
    INTERNAL "INTERNAL" [Internal] []
        "Something is broken. The log of the server says what."
        "Report it; read the user to find out whether a write was applied.";
    UNEXPECTED "UNEXPECTED" [] []
        "The gRPC library of the server ended the call for a reason of its own."
        "Go by the code.";
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use super::*;
    use crate::config::docs;

    /// A code as the specification of gRPC spells it.
    fn spelt(code: Code) -> String {
        let debug = format!("{code:?}");
        let spelt = debug.chars().flat_map(|c| [c.is_ascii_uppercase().then_some('_'), Some(c)]).flatten();
        spelt.skip(1).collect::<String>().to_ascii_uppercase()
    }

    fn table() -> String {
        let mut table = String::from(
            "| reason | code | when | repeat after | what a client does |\n|---|---|---|---|---|\n",
        );
        for reason in REASONS {
            let code = reason.code.map_or("any".to_owned(), |code| format!("`{}`", spelt(code)));
            let retry = match reason.retry_after() {
                None => "no".to_owned(),
                Some(delay) => format!("{} ms", delay.as_millis()),
            };
            let (when, action) = reason.documented;
            writeln!(table, "| `{}` | {code} | {when} | {retry} | {action} |", reason.name).unwrap();
        }
        table
    }

    #[test]
    fn the_documented_reasons_are_those_of_the_table() {
        docs::compare("docs/API.md", "reasons", &table());
    }

    #[test]
    fn each_reason_is_one_upper_case_name_with_a_row_for_each_code() {
        let mut seen = BTreeSet::new();
        for reason in REASONS {
            let name = reason.name;
            assert!(name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{name}");
            assert!(seen.insert((name, reason.code.map(i32::from))), "{name} has two rows for one code");
            for text in <[_; 2]>::from(reason.documented) {
                assert!(
                    text.ends_with('.') && !text.contains('|'),
                    "{name}: {text:?} is no sentence for a table"
                );
            }
        }
    }
}
