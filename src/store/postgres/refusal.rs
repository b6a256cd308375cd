//! Which errors are of one row, and not of the database.
//!
//! A row can be refused by what the owner of the database added: a constraint, a trigger,
//! a policy. Such an error fails the one write that brought the row.

use std::fmt::Write;

use tokio_postgres::error::{DbError, SqlState};

/// Classes of SQLSTATE that are about values: data exception, integrity constraint
/// violation, WITH CHECK OPTION violation, and what PL/pgSQL raises.
const OF_VALUES: [&str; 4] = ["22", "23", "44", "P0"];

/// Classes that are about the connection, the transaction or the server, even where a
/// trigger's function is interrupted by one of them.
const OF_THE_SERVER: [&str; 7] = ["08", "25", "40", "53", "57", "58", "XX"];

/// The function of the server that reports a row that a policy refuses. The SQLSTATE is
/// also that of a missing right, which fails every row.
const POLICY_CHECK: &str = "ExecWithCheckOptions";

/// The rule that refuses a row, in words for the log; `None` for errors that are not of
/// one row. Holds the names of objects in the schema, and never a value: the message and
/// the detail of such an error may repeat the row.
pub(super) fn rule(error: &tokio_postgres::Error) -> Option<String> {
    let answer = error.as_db_error()?;
    let code = answer.code();
    let class = &code.code()[..2];
    let of_policy = *code == SqlState::INSUFFICIENT_PRIVILEGE && answer.routine() == Some(POLICY_CHECK);
    // Only a function has a context, and the functions that writes run are triggers.
    let in_trigger =
        answer.where_().is_some() && !OF_THE_SERVER.contains(&class) && *code != SqlState::LOCK_NOT_AVAILABLE;
    (OF_VALUES.contains(&class) || of_policy || in_trigger).then(|| words(answer))
}

/// Whether the row may be good by now, because another transaction was in its way.
pub(super) fn may_pass(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| *code == SqlState::UNIQUE_VIOLATION) || is_left_out(error)
}

/// Whether a statement of ours failed because it wrote fewer rows than it was given.
fn is_left_out(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|answer| {
        *answer.code() == SqlState::INVALID_TEXT_REPRESENTATION && answer.where_().is_none()
    })
}

fn words(answer: &DbError) -> String {
    let mut words = format!("SQLSTATE {}", answer.code().code());
    let names = [
        ("constraint", answer.constraint()),
        ("column", answer.column()),
        ("type", answer.datatype()),
        ("table", answer.table()),
        ("function", answer.where_().and_then(function)),
    ];
    for (kind, name) in names {
        if let Some(name) = name {
            let _ = write!(words, ", {kind} {name}");
        }
    }
    if names.iter().all(|(_, name)| name.is_none()) {
        words.push_str(", an expression, or a policy or a trigger that leaves rows out");
    }
    words
}

/// The function that an error comes from: `PL/pgSQL function NAME(TYPES) line 3 at RAISE`.
fn function(context: &str) -> Option<&str> {
    let (_, rest) = context.lines().next()?.split_once("function ")?;
    let (name, _) = rest.split_once('(')?;
    let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "_.$\"".contains(c));
    is_name(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_function_is_taken_from_a_context() {
        for (context, name) in [
            ("PL/pgSQL function no_odd() line 3 at RAISE", Some("no_odd")),
            (
                "PL/pgSQL function audit.no_odd(text) line 3 at RAISE\nSQL statement \"...\"",
                Some("audit.no_odd"),
            ),
            ("SQL statement \"INSERT INTO log VALUES ('Ada (function')\"", None),
            ("SQL function Ada Lovelace( ", None),
            ("", None),
        ] {
            assert_eq!(function(context), name, "{context}");
        }
    }
}
