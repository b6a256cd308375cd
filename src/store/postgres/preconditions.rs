//! What a database and a login must be like, checked before any call is served.

use tokio_postgres::error::SqlState;

use super::{connect_error::ConnectError, session::Session};
use crate::store::OpenError;

/// What the service does with its tables.
const RIGHTS: &str = "
    SELECT privilege || ' ON user_service.' || name FROM (VALUES
        ('meta', 'SELECT'), ('meta', 'UPDATE'),
        ('users', 'SELECT'), ('users', 'INSERT'), ('users', 'UPDATE'), ('users', 'DELETE'),
        ('changes', 'SELECT'), ('changes', 'INSERT'), ('changes', 'DELETE'),
        ('idempotency', 'SELECT'), ('idempotency', 'INSERT'), ('idempotency', 'UPDATE'),
        ('idempotency', 'DELETE')) needed (name, privilege)
    WHERE NOT has_table_privilege('user_service.' || name, privilege)";

/// Tables of which policies may hide rows from this login.
const POLICIES: &str = "
    SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'user_service' AND c.relkind = 'r' AND row_security_active(c.oid)";

/// Checks what every command needs of a database.
pub(super) async fn database(session: &Session, place: &str) -> Result<(), OpenError> {
    let encoding = texts(session, "SELECT current_setting('server_encoding')").await;
    let encoding = encoding.map_err(|error| failed(place, error))?.swap_remove(0);
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { place: place.into(), encoding });
    }
    // A pooler that gives the server away after each statement refuses a transaction.
    for statement in ["BEGIN", "COMMIT"] {
        session.client.batch_execute(statement).await.map_err(|error| failed(place, error))?;
    }
    Ok(())
}

/// Checks what serving needs of a login, once the schema is there.
pub(super) async fn login(session: &Session, place: &str) -> Result<(), OpenError> {
    let failed = |error| failed(place, error);
    let role = texts(session, "SELECT current_setting('session_replication_role')").await.map_err(failed)?;
    if role[0] == "replica" {
        return Err(OpenError::TriggersOff(place.into()));
    }
    let missing = texts(session, RIGHTS).await.map_err(failed)?;
    if !missing.is_empty() {
        return Err(OpenError::NotGranted { place: place.into(), missing: missing.join(", ") });
    }
    let hidden = texts(session, POLICIES).await.map_err(failed)?;
    if !hidden.is_empty() {
        tracing::warn!(
            tables = hidden.join(", "),
            "row-level security applies to the store's login: what a policy hides is not found"
        );
    }
    Ok(())
}

/// Why a statement failed at start.
pub(super) fn failed(place: &str, error: tokio_postgres::Error) -> OpenError {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            OpenError::NotGranted { place: place.into(), missing: "SELECT ON user_service.meta".into() }
        }
        _ => OpenError::Postgres { place: place.into(), source: ConnectError::Sql(error) },
    }
}

/// The first column of every row.
async fn texts(session: &Session, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = session.client.query_typed(sql, &[]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
