//! The schema of the file: its version, its migrations, and the purge of the change log.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::{
    columns::MIGRATIONS,
    connections::{Log, checkpoint},
};
use crate::store::OpenError;

/// What makes a `SQLite` file one of ours: "usrv" in ASCII.
const APPLICATION_ID: i32 = 0x7573_7276;

/// The schema version of a file that is ours, 0 for an empty one. Changes nothing.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let facts = connection.query_row(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_application_id, pragma_user_version",
        (),
        |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    );
    match facts {
        Ok((0, 0, 0)) => Ok(0),
        Ok((APPLICATION_ID, version, _)) => {
            let found = usize::try_from(version).unwrap_or(usize::MAX);
            let known = MIGRATIONS.len();
            if found <= known { Ok(found) } else { Err(OpenError::Newer { path: path.into(), found, known }) }
        }
        Ok(_) => Err(OpenError::Foreign(path.into())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::Foreign(path.into()))
        }
        Err(source) => Err(OpenError::sqlite(path, source)),
    }
}

/// All steps in one transaction: a crash leaves the old version or the new one.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    if from == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[from..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len().cast_signed())?;
    transaction.commit()?;
    tracing::info!(from, to = MIGRATIONS.len(), "the store's schema was migrated");
    Ok(())
}

/// Makes deletions of all changes to users before their last deletion; how many. They are
/// in the file or its log still where the checkpoint was busy.
pub(super) fn purge(connection: &Connection) -> rusqlite::Result<(u64, Log)> {
    let erased = connection.execute(
        "UPDATE changes SET kind = 3, after_image = NULL
         FROM (SELECT id, max(revision) AS last FROM changes WHERE kind = 3 GROUP BY id) gone
         WHERE changes.id = gone.id AND changes.revision < gone.last AND changes.kind <> 3",
        (),
    )?;
    // Pages may keep remains of rows that have moved.
    connection.execute_batch("VACUUM")?;
    Ok((erased as u64, checkpoint(connection, "TRUNCATE")?))
}
