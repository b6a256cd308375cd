//! The tables of a database as a backup, and back.
//!
//! Rows go over as they are; the database has two columns that a file has not.

use std::{fs::File, path::Path, pin::pin};

use futures_util::TryStreamExt;
use rusqlite::{Connection, params_from_iter, types::Value};
use tokio_postgres::{
    Row,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{columns, connect_error::ConnectError, session::Session};
use crate::store::{
    OpenError,
    backup::{BackupError, BackupSummary},
    sqlite,
};

type Columns = &'static [(&'static str, Type)];

/// Every table but `meta`, with its columns. Only the database has those of the type
/// `UUID`: they name the transaction that made a row. The addresses of the change log are
/// left out: they are only compared with those of writes under way.
const TABLES: [(&str, Columns); 3] = [
    ("users", &columns::COLUMNS),
    (
        "changes",
        &[
            ("revision", Type::INT8),
            ("time", Type::INT8),
            ("kind", Type::INT4),
            ("id", Type::TEXT),
            ("after_image", Type::TEXT),
            ("batch", Type::UUID),
        ],
    ),
    (
        "idempotency",
        &[
            ("key", Type::BYTEA),
            ("payload", Type::BYTEA),
            ("id", Type::TEXT),
            ("revision", Type::INT8),
            ("time", Type::INT8),
        ],
    ),
];

/// Reads the tables as they are at one moment into an empty file.
pub(super) async fn dump(session: &Session, place: &str, into: &Path) -> Result<(), BackupError> {
    let sql = |error| sql_failed(place, error);
    let file = |source| BackupError::Copy { path: into.into(), source };
    // What a connection that broke has left there.
    File::create(into).map_err(|source| BackupError::File { path: into.into(), source })?;
    let backup = sqlite::create_backup(into)?;
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0";
    session.client.batch_execute(snapshot).await.map_err(sql)?;
    backup.execute_batch("BEGIN").map_err(file)?;
    for (table, columns) in TABLES {
        let columns: Vec<_> = columns.iter().filter(|(_, of)| *of != Type::UUID).collect();
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let places = vec!["?"; columns.len()].join(", ");
        let mut insert =
            backup.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({places})")).map_err(file)?;
        let select = format!("SELECT {names} FROM user_service.{table}");
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        let mut rows = pin!(session.client.query_typed_raw(&select, none).await.map_err(sql)?);
        while let Some(row) = rows.try_next().await.map_err(sql)? {
            let values: Result<Vec<_>, _> =
                columns.iter().enumerate().map(|(n, (_, of))| value(&row, n, of)).collect();
            insert.execute(params_from_iter(values.map_err(sql)?)).map_err(file)?;
        }
    }
    let meta = "SELECT store_id, revision FROM user_service.meta";
    let meta = session.client.query_typed(meta, &[]).await.map_err(sql)?;
    let meta = meta.first().ok_or_else(|| BackupError::Store(OpenError::NoSchema(place.into())))?;
    let (store_id, revision): (Uuid, i64) = (meta.try_get(0).map_err(sql)?, meta.try_get(1).map_err(sql)?);
    backup
        .execute("UPDATE meta SET store_id = ?1, revision = ?2", (store_id.into_bytes(), revision))
        .and_then(|_| backup.execute_batch("COMMIT"))
        .map_err(file)?;
    session.client.batch_execute("COMMIT").await.map_err(sql)
}

/// Writes the rows of a backup into tables that are empty, or replaces their rows, in
/// one transaction.
pub(super) async fn load(
    session: &Session,
    place: &str,
    from: &Path,
    (holds, replace): (BackupSummary, bool),
) -> Result<(), BackupError> {
    let sql = |error| sql_failed(place, error);
    let backup = sqlite::open_backup_up_to_date(from)?;
    // Holding the counter keeps other replicas from writing.
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = 0";
    session.client.batch_execute(begin).await.map_err(sql)?;
    let counter = "SELECT revision FROM user_service.meta FOR UPDATE";
    let counter = session.client.query_typed(counter, &[]).await.map_err(sql)?;
    let counter: i64 = counter.first().map_or(Ok(0), |row| row.try_get(0)).map_err(sql)?;
    if counter != 0 {
        if !replace {
            return Err(BackupError::NotEmpty(place.into()));
        }
        for (table, _) in TABLES {
            session.client.batch_execute(&format!("DELETE FROM user_service.{table}")).await.map_err(sql)?;
        }
    }
    let batch = Uuid::new_v4();
    for (table, columns) in TABLES {
        copy_in(session, place, &backup, from, (table, columns), batch).await?;
    }
    let store_id: [u8; 16] = backup
        .query_row("SELECT store_id FROM meta", (), |row| row.get(0))
        .map_err(|source| BackupError::Copy { path: from.into(), source })?;
    let (store_id, revision) = (Uuid::from_bytes(store_id), holds.revision.cast_signed());
    let meta = "UPDATE user_service.meta SET store_id = $1, revision = $2";
    session
        .client
        .query_typed(meta, &[(&store_id, Type::UUID), (&revision, Type::INT8)])
        .await
        .map_err(sql)?;
    session.client.batch_execute("COMMIT").await.map_err(sql)
}

async fn copy_in(
    session: &Session,
    place: &str,
    backup: &Connection,
    from: &Path,
    (table, columns): (&str, Columns),
    batch: Uuid,
) -> Result<(), BackupError> {
    let sql = |error| sql_failed(place, error);
    let file = |source| BackupError::Copy { path: from.into(), source };
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let held = columns.iter().filter(|(_, of)| *of != Type::UUID).map(|(name, _)| *name);
    let select = format!("SELECT {} FROM {table}", held.collect::<Vec<_>>().join(", "));
    let types: Vec<_> = columns.iter().map(|(_, of)| of.clone()).collect();
    let copy = format!("COPY user_service.{table} ({names}) FROM STDIN (FORMAT binary)");
    let sink = session.client.copy_in(&copy).await.map_err(sql)?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    let mut select = backup.prepare(&select).map_err(file)?;
    let mut rows = select.query(()).map_err(file)?;
    while let Some(row) = rows.next().map_err(file)? {
        let values: rusqlite::Result<Vec<_>> =
            types.iter().enumerate().map(|(n, of)| param(row, n, of, batch)).collect();
        writer.as_mut().write_raw(values.map_err(file)?).await.map_err(sql)?;
    }
    writer.finish().await.map(drop).map_err(sql)
}

/// A column of the database as the file has it.
fn value(row: &Row, column: usize, of: &Type) -> Result<Value, tokio_postgres::Error> {
    let value = match *of {
        Type::TEXT => row.try_get::<_, Option<String>>(column)?.map(Value::Text),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map(Value::Blob),
        Type::INT4 => row.try_get::<_, Option<i32>>(column)?.map(|number| Value::Integer(number.into())),
        _ => row.try_get::<_, Option<i64>>(column)?.map(Value::Integer),
    };
    Ok(value.unwrap_or(Value::Null))
}

/// A column of the file as the database has it.
fn param(
    row: &rusqlite::Row,
    column: usize,
    of: &Type,
    batch: Uuid,
) -> rusqlite::Result<Box<dyn ToSql + Sync>> {
    Ok(match *of {
        Type::TEXT => Box::new(row.get::<_, Option<String>>(column)?),
        Type::BYTEA => Box::new(row.get::<_, Option<Vec<u8>>>(column)?),
        Type::INT4 => Box::new(row.get::<_, Option<i32>>(column)?),
        Type::UUID => Box::new(batch),
        _ => Box::new(row.get::<_, Option<i64>>(column)?),
    })
}

fn sql_failed(place: &str, error: tokio_postgres::Error) -> BackupError {
    OpenError::Postgres { place: place.into(), source: ConnectError::Sql(error) }.into()
}
