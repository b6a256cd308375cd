//! The schema: the first process migrates it, and steps only add to it, so the
//! previous release keeps working.

use std::time::Duration;

use tokio::time;
use tokio_postgres::error::SqlState;

use super::{
    columns::STEPS,
    connect_error::ConnectError,
    preconditions::{self, failed},
    session::Session,
};
use crate::store::OpenError;

/// The advisory lock of a migration.
const MIGRATION_LOCK: i64 = 0x7573_7276_0000_0001;

/// How long a step waits for a table, and every later user of that table behind it.
/// Shorter than a deadlock takes to be noticed: the migration is what gives way.
const LOCK_TIMEOUT: &str = "500ms";

/// Begins what may take long, whatever limit the login has. The last of these limits is
/// unknown to releases of PostgreSQL before 17.
const BEGIN: &str = "BEGIN READ WRITE; SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')";

/// How often it then tries again, and how long it leaves the tables to others first.
const MAX_ATTEMPTS: usize = 60;
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Makes sure that the schema is there, and none that a newer release made.
pub(super) async fn is_known(session: &Session, place: &str) -> Result<(), OpenError> {
    let version = version(session).await;
    let version = version
        .map_err(|error| OpenError::Postgres { place: place.into(), source: ConnectError::Sql(error) })?;
    match checked(version, &STEPS, place)? {
        0 => Err(OpenError::NoSchema(place.into())),
        _ => Ok(()),
    }
}

/// Makes sure that the schema is the newest, and changes it where it is not.
pub(super) async fn bring_up_to_date(
    session: &Session,
    place: &str,
    steps: &[&str],
) -> Result<(), OpenError> {
    let failed = |error| failed(place, error);
    preconditions::database(session, place).await?;
    if checked(version(session).await.map_err(failed)?, steps, place)? == steps.len() {
        return Ok(());
    }
    for _ in 0..MAX_ATTEMPTS {
        // The connection is not used again, so a failure rolls itself back.
        if migrate(session, place, steps).await? {
            return Ok(());
        }
        session.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        time::sleep(RETRY_INTERVAL).await;
    }
    Err(OpenError::Busy(place.into()))
}

/// Whether all steps were made; if not, another session holds a lock that they need.
async fn migrate(session: &Session, place: &str, steps: &[&str]) -> Result<bool, OpenError> {
    match steps_made(session, steps).await {
        Ok(found) => {
            let from = checked(found, steps, place)?;
            if from < steps.len() {
                tracing::info!(from, to = steps.len(), "the store's schema was migrated");
            }
            Ok(true)
        }
        Err(error) => Err(match error.code() {
            Some(code) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
                return Ok(false);
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => OpenError::NoRights(place.into()),
            Some(code) if [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT].contains(code) => {
                OpenError::ForeignSchema(place.into())
            }
            _ => OpenError::Postgres { place: place.into(), source: ConnectError::Sql(error) },
        }),
    }
}

/// Makes those steps that are missing, in one transaction; what version it found.
async fn steps_made(session: &Session, steps: &[&str]) -> Result<usize, tokio_postgres::Error> {
    let client = &session.client;
    client.batch_execute(&format!("{BEGIN}; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    // Another may have been faster.
    let from = version(session).await?;
    client.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    if from > 0 {
        // Writers lock this table before any other: a session that takes tables in another
        // order would wait with them in a circle. Its row would not do: a statement that
        // waits for it has the tables already.
        client.batch_execute("LOCK TABLE user_service.meta IN EXCLUSIVE MODE").await?;
    }
    for step in steps.iter().skip(from) {
        client.batch_execute(step).await?;
    }
    let to = steps.len();
    let end =
        format!("UPDATE user_service.meta SET schema_version = {to} WHERE schema_version < {to}; COMMIT");
    client.batch_execute(&end).await?;
    Ok(from)
}

fn checked(found: usize, steps: &[&str], place: &str) -> Result<usize, OpenError> {
    let known = steps.len();
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
        UPDATE user_service.changes SET kind = 3, email = NULL, after_image = NULL
        FROM (SELECT id, max(revision) AS last FROM user_service.changes WHERE kind = 3 GROUP BY id) gone
        WHERE changes.id = gone.id AND changes.revision < gone.last AND changes.kind <> 3
        RETURNING 1)
        SELECT count(*) FROM purged";
    let purged = async {
        session.client.batch_execute(BEGIN).await?;
        let rows = session.client.query_typed(purge, &[]).await?;
        session.client.batch_execute("COMMIT").await?;
        rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))
    };
    match purged.await {
        Ok(count) => Ok(count.cast_unsigned()),
        Err(error) => Err(OpenError::Postgres { place: place.into(), source: ConnectError::Sql(error) }),
    }
}
