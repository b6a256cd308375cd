//! What commands do to a database: migrations, purge, backup and restore. Each function
//! blocks, and opens one connection.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Handle},
    time,
};

use super::{
    backup as copy, columns, connect_error::ConnectError, reconnecting::Connector, schema, session::Session,
};
use crate::{
    config::{Config, PostgresUrl},
    store::{BackupError, BackupSummary, OpenError, sqlite},
};

/// How long the first connection is retried: the database may be starting as well.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often that is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Brings the schema up to date, and further where there are steps to come. Blocks.
pub fn migrate(url: &PostgresUrl, config: &Config, further: &[&str]) -> Result<(), OpenError> {
    let connector = connector(url, config)?;
    let steps = [&columns::STEPS[..], further].concat();
    block_on(first_connection(&connector, url, async |session: &Session, place: &str| {
        schema::bring_up_to_date(session, place, &steps).await
    }))
}

/// Erases deleted users from the change log; how many changes. Blocks.
pub fn purge(url: &PostgresUrl, config: &Config) -> Result<u64, OpenError> {
    let connector = connector(url, config)?;
    block_on(first_connection(&connector, url, schema::is_known))?;
    migrate(url, config, &[])?;
    block_on(first_connection(&connector, url, schema::purge))
}

/// Copies what the database holds at one moment into a new file. Blocks.
pub fn backup(url: &PostgresUrl, config: &Config, into: &Path) -> Result<BackupSummary, BackupError> {
    let connector = connector(url, config)?;
    block_on(first_connection(&connector, url, async |session: &Session, place: &str| {
        schema::is_known(session, place).await?;
        copy::dump(session, place, into).await
    }))?;
    sqlite::check_backup(into)
}

/// Copies a backup into a database. Blocks.
pub fn restore(
    url: &PostgresUrl,
    config: &Config,
    from: &Path,
    replace: bool,
) -> Result<BackupSummary, BackupError> {
    let holds = sqlite::check_backup(from)?;
    migrate(url, config, &[])?;
    let connector = connector(url, config)?;
    block_on(first_connection(&connector, url, async |session: &Session, place: &str| {
        copy::load(session, place, from, (holds, replace)).await
    }))?;
    Ok(holds)
}

pub(super) fn block_on<T, E: From<OpenError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match Handle::try_current() {
        Ok(handle) => handle.block_on(work),
        Err(_) => runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?
            .block_on(work),
    }
}

pub(super) fn connector(url: &PostgresUrl, config: &Config) -> Result<Connector, OpenError> {
    Connector::new(url, config).map_err(OpenError::Certificates)
}

/// Connects, waiting a little for a database that is not there yet, and does
/// something there.
pub(super) async fn first_connection<T, E: From<OpenError>>(
    connector: &Connector,
    url: &PostgresUrl,
    work: impl AsyncFn(&Session, &str) -> Result<T, E>,
) -> Result<T, E> {
    let place = url.to_string();
    let until = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let plain = connector.without_statements();
        let (work, place_of_it) = (&work, &place);
        let done = plain.with(|session| async move { work(&session, place_of_it).await });
        let fault = match done.await {
            Ok(Some(done)) => return done,
            Ok(None) => ConnectError::Closed,
            Err(fault) => fault,
        };
        if !fault.is_transient() || Instant::now() >= until {
            return Err(OpenError::Postgres { place, source: fault }.into());
        }
        time::sleep(RETRY_INTERVAL).await;
    }
}
