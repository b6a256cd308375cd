//! Why a connection does not come about, in words that help.

use std::{error::Error, fmt, io, path::PathBuf};

use super::refusal;

/// Why a connection, or a statement at start, failed.
#[derive(Debug)]
pub enum ConnectError {
    Password { path: PathBuf, source: io::Error },
    Certificates(String),
    Timeout,
    Closed,
    Sql(tokio_postgres::Error),
}

impl ConnectError {
    /// Whether it may well be gone in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Password { .. } | Self::Certificates(_) => false,
            Self::Timeout | Self::Closed => true,
            Self::Sql(error) => match (error.code(), io_error(error)) {
                // Starting, stopping, full; a pooler that has no connection to give.
                (Some(code), _) => ["57P0", "53", "08"].iter().any(|class| code.code().starts_with(class)),
                // Not there; but a certificate that is not good stays so.
                (None, Some(fault)) => fault.kind() != io::ErrorKind::InvalidData,
                (None, None) => error.is_closed(),
            },
        }
    }
}

/// Whether a server was there, but none that takes writes.
fn takes_no_writes(error: &tokio_postgres::Error) -> bool {
    io_error(error).is_some_and(|fault| {
        fault.kind() == io::ErrorKind::PermissionDenied && fault.raw_os_error().is_none()
    })
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { path, source } => {
                write!(f, "cannot read the password in {}: {source}", path.display())
            }
            Self::Certificates(why) => write!(f, "cannot use the certificates: {why}"),
            Self::Timeout => f.write_str("it does not answer in time"),
            Self::Closed => f.write_str("it ends the connection before it can be used"),
            // The detail of an error may hold a row's values, and so may the message of one
            // that is about a row.
            Self::Sql(error) => match (refusal::rule(error), error.as_db_error()) {
                (Some(rule), _) => write!(f, "a rule of the database refuses a row: {rule}"),
                (None, Some(answer)) => write!(f, "{} ({})", answer.message(), answer.code().code()),
                (None, None) if takes_no_writes(error) => f.write_str(
                    "it takes no writes: it is a standby, or default_transaction_read_only is on for the login \
                     or the database",
                ),
                (None, None) => match error.source() {
                    Some(source) => write!(f, "{error}: {source}"),
                    None => write!(f, "{error}"),
                },
            },
        }
    }
}

impl Error for ConnectError {}
