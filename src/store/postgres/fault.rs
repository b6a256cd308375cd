//! Why a connection does not come about, in words that help.

use std::{error::Error, fmt, io, path::PathBuf};

/// Why a connection, or a statement at start, failed.
#[derive(Debug)]
pub enum Fault {
    Password { path: PathBuf, source: io::Error },
    Silent,
    Sql(tokio_postgres::Error),
}

impl Fault {
    /// Whether it may well be gone in a moment.
    pub fn passes(&self) -> bool {
        match self {
            Self::Password { .. } => false,
            Self::Silent => true,
            Self::Sql(error) => match (error.code(), io_error(error)) {
                // Starting, stopping, full.
                (Some(code), _) => code.code().starts_with("57P0") || code.code().starts_with("53"),
                // Not there; but a certificate that is not good stays so.
                (None, Some(fault)) => fault.kind() != io::ErrorKind::InvalidData,
                (None, None) => error.is_closed(),
            },
        }
    }
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { path, source } => {
                write!(f, "cannot read the password in {}: {source}", path.display())
            }
            Self::Silent => f.write_str("it does not answer in time"),
            // The detail of an error may hold a row's values; its message does not.
            Self::Sql(error) => match error.as_db_error() {
                Some(answer) => write!(f, "{} ({})", answer.message(), answer.code().code()),
                None => match error.source() {
                    Some(source) => write!(f, "{error}: {source}"),
                    None => write!(f, "{error}"),
                },
            },
        }
    }
}

impl Error for Fault {}
