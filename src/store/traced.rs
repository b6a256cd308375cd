//! A store whose operations are spans, beneath the calls that are traced.
//!
//! Attributes are those of OpenTelemetry's conventions for clients of databases,
//! none of which says what was asked about whom.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry::{KeyValue, trace::Status};
use tokio_postgres::config::Host;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    config::PostgresUrl,
    domain::{
        Deadline, Entry, Error, LogHead, Page, PageSize, Revision, Store, StoreHealth, User, UserId, UserKey,
        Write, WriteResult,
    },
    telemetry::SPAN_TARGET,
};

/// Where PostgreSQL listens unless its URL says otherwise.
const POSTGRES_PORT: u16 = 5_432;

/// The store behind it, and what `db.system.name` calls its kind.
pub(super) struct Traced {
    pub store: Arc<dyn Store>,
    pub system: &'static str,
    /// More attributes, of where it is.
    pub place: Vec<KeyValue>,
}

/// Where a database is: its schema of ours, and the host, unless there are several and
/// the one that takes writes may change.
pub(super) fn place(url: &PostgresUrl) -> Vec<KeyValue> {
    let server = &url.server;
    let mut place = Vec::new();
    if let Some(database) = server.get_dbname().or_else(|| server.get_user()) {
        place.push(KeyValue::new("db.namespace", format!("{database}.user_service")));
    }
    match server.get_hosts() {
        [Host::Tcp(host)] => {
            let port = server.get_ports().first().copied().unwrap_or(POSTGRES_PORT);
            place.push(KeyValue::new("server.address", host.clone()));
            place.push(KeyValue::new("server.port", i64::from(port)));
        }
        [Host::Unix(path)] => place.push(KeyValue::new("server.address", path.display().to_string())),
        _ => {}
    }
    place
}

impl Traced {
    /// Runs an operation, with a span where the call has one. `size` is that of a
    /// batch.
    async fn run<T>(
        &self,
        (operation, name): (&'static str, &'static str),
        size: Option<usize>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Without one it would begin a trace that was not sampled.
        if Span::current().is_none() {
            return work.await;
        }
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            "store",
            otel.name = name,
            otel.kind = "client",
            db.system.name = self.system,
            db.operation.name = operation,
            db.collection.name = "users",
        );
        for attribute in &self.place {
            span.set_attribute(attribute.key.clone(), attribute.value.clone());
        }
        if let Some(size) = size.filter(|size| *size > 1) {
            span.set_attribute("db.operation.batch.size", i64::try_from(size).unwrap_or(i64::MAX));
        }
        let done = work.await;
        if let Some(fault) = done.as_ref().err().and_then(fault) {
            span.set_attribute("error.type", fault);
            span.set_status(Status::error(""));
        }
        done
    }
}

/// What went wrong where the store itself is at fault; what the caller asked for
/// amiss is an answer like any other.
fn fault(error: &Error) -> Option<&'static str> {
    match error {
        Error::DeadlineExceeded => Some("deadline_exceeded"),
        Error::Overloaded { .. } => Some("overloaded"),
        Error::Unavailable(_) => Some("unavailable"),
        Error::OutcomeUnknown => Some("outcome_unknown"),
        Error::Internal(_) => Some("internal"),
        _ => None,
    }
}

#[async_trait]
impl Store for Traced {
    fn get_cached(&self, id: &UserId) -> Option<Arc<User>> {
        self.store.get_cached(id)
    }

    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        self.run(("get", "get users"), None, self.store.get(key, deadline)).await
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        self.run(("batch_get", "batch_get users"), Some(ids.len()), self.store.batch_get(ids, deadline)).await
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        self.run(("list", "list users"), None, self.store.list(after, size, deadline)).await
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        self.run(("write", "write users"), None, self.store.write(write, deadline)).await
    }

    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error> {
        self.store.log_head(deadline).await
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.run(("changes", "changes users"), None, self.store.changes(after, limit, deadline)).await
    }

    async fn changed(&self, after: Revision) {
        self.store.changed(after).await;
    }

    async fn probe(&self) -> StoreHealth {
        self.store.probe().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(url: &str) -> Vec<(String, String)> {
        let place = place(&PostgresUrl::parse(url).unwrap());
        place.iter().map(|attribute| (attribute.key.to_string(), attribute.value.to_string())).collect()
    }

    #[test]
    fn a_database_is_named_by_its_schema_and_its_host() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let (namespace, address) =
            (pair("db.namespace", "accounts.user_service"), pair("server.address", "db-1"));
        assert_eq!(
            place_of("postgres://users:secret@db-1/accounts"),
            [namespace.clone(), address.clone(), pair("server.port", "5432")]
        );
        assert_eq!(
            place_of("postgres://users@db-1:6432/accounts"),
            [namespace.clone(), address, pair("server.port", "6432")]
        );
        assert_eq!(
            place_of("postgres://users@db-1,db-2/accounts"),
            [namespace],
            "which of them is not known"
        );
        assert_eq!(place_of("postgres://users@db-1")[0], pair("db.namespace", "users.user_service"));
    }
}
