//! The schema: brought up to date by whoever comes first, and only ever added
//! to, so that the release before goes on working meanwhile.

use tokio_postgres::error::SqlState;

use super::{fault::Fault, session::Session};
use crate::store::OpenError;

/// The schema, one step a version. Only ever appended to, and no step may take
/// from the release before what it uses.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_users.sql")];

/// The advisory lock of whoever migrates.
const MIGRATION_LOCK: i64 = 0x7573_7276_0000_0001;

/// Makes sure that the schema is the newest, and changes it where it is not.
pub(super) async fn bring_up_to_date(session: &Session, place: &str) -> Result<(), OpenError> {
    let failed = |error| OpenError::Postgres { place: place.into(), source: Fault::Sql(error) };
    if checked(version(session).await.map_err(failed)?, place)? == MIGRATIONS.len() {
        return Ok(());
    }
    // The connection is not used again, so a failure rolls itself back.
    migrate(session, place).await
}

async fn migrate(session: &Session, place: &str) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => OpenError::NoRights(place.into()),
        Some(code) if [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT].contains(code) => {
            OpenError::ForeignSchema(place.into())
        }
        _ => OpenError::Postgres { place: place.into(), source: Fault::Sql(error) },
    };
    let client = &session.client;
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    client.batch_execute(&lock).await.map_err(failed)?;
    // Another may have been faster.
    let from = checked(version(session).await.map_err(failed)?, place)?;
    for step in &MIGRATIONS[from..] {
        client.batch_execute(step).await.map_err(failed)?;
    }
    let to = MIGRATIONS.len();
    let end =
        format!("UPDATE user_service.meta SET schema_version = {to} WHERE schema_version < {to}; COMMIT");
    client.batch_execute(&end).await.map_err(failed)?;
    if from < to {
        tracing::info!(from, to, "the store's schema was migrated");
    }
    Ok(())
}

fn checked(found: usize, place: &str) -> Result<usize, OpenError> {
    let known = MIGRATIONS.len();
    if found <= known { Ok(found) } else { Err(OpenError::NewerSchema { place: place.into(), found, known }) }
}

/// The schema's version, 0 where there is none.
async fn version(session: &Session) -> Result<usize, tokio_postgres::Error> {
    let there = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
                 ON n.oid = c.relnamespace WHERE n.nspname = 'user_service' AND c.relname = 'meta')";
    let there: bool = session.client.query_typed(there, &[]).await?[0].try_get(0)?;
    if !there {
        return Ok(0);
    }
    let rows = session.client.query_typed("SELECT schema_version FROM user_service.meta", &[]).await?;
    let version: i32 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(usize::try_from(version).unwrap_or(0))
}

/// Makes deletions of all changes to users before their last deletion; how many.
pub(super) async fn purge(session: &Session, place: &str) -> Result<u64, OpenError> {
    let purge = "WITH purged AS (
        UPDATE user_service.changes SET kind = 3, name = NULL, email = NULL, age = NULL,
            create_time = NULL, update_time = NULL
        FROM (SELECT id, max(revision) AS last FROM user_service.changes WHERE kind = 3 GROUP BY id) gone
        WHERE changes.id = gone.id AND changes.revision < gone.last AND changes.email IS NOT NULL
        RETURNING 1)
        SELECT count(*) FROM purged";
    let purged = async {
        let rows = session.client.query_typed(purge, &[]).await?;
        rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))
    };
    match purged.await {
        Ok(count) => Ok(count.cast_unsigned()),
        Err(error) => Err(OpenError::Postgres { place: place.into(), source: Fault::Sql(error) }),
    }
}
