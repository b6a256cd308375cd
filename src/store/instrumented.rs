//! What every store does around its operations: the check of the deadline, the time that
//! they take, and spans beneath the calls that are traced.
//!
//! The attributes of spans are those of OpenTelemetry's conventions for clients of databases,
//! none of which says what was asked about whom.

use std::sync::Arc;

use async_trait::async_trait;
use metrics::{Histogram, histogram};
use opentelemetry::{KeyValue, trace::Status};
use tokio_postgres::config::Host;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::metrics::{OPERATION_DURATION, Timer};
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

/// A store, and the metrics and spans of its operations.
pub(super) struct Instrumented<S> {
    store: S,
    operations: Operations,
    /// What `db.system.name` calls this kind of store.
    system: &'static str,
    /// More attributes, of where it is.
    place: Vec<KeyValue>,
}

struct Operations {
    get: Operation,
    batch_get: Operation,
    list: Operation,
    changes: Operation,
    write: Operation,
}

struct Operation {
    name: &'static str,
    span: String,
    duration: Histogram,
}

impl Operation {
    fn new(name: &'static str) -> Self {
        let duration = histogram!(OPERATION_DURATION, "operation" => name);
        Self { name, span: format!("{name} users"), duration }
    }
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

impl<S> Instrumented<S> {
    pub fn new(store: S, system: &'static str, place: Vec<KeyValue>) -> Self {
        let operations = Operations {
            get: Operation::new("get"),
            batch_get: Operation::new("batch_get"),
            list: Operation::new("list"),
            changes: Operation::new("changes"),
            write: Operation::new("write"),
        };
        Self { store, operations, system, place }
    }

    /// Runs an operation that is not late, and records its time, until its answer or
    /// until its caller gives up. It is a span where the call has one.
    async fn run<T>(
        &self,
        operation: &Operation,
        deadline: Deadline,
        batch_size: usize,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _timer = Timer::start(&operation.duration);
        check(deadline)?;
        // Without one it would begin a trace that was not sampled.
        if Span::current().is_none() {
            return work.await;
        }
        let span = self.span(operation, batch_size);
        let done = work.await;
        if let Some(fault) = done.as_ref().err().and_then(fault) {
            span.set_attribute("error.type", fault);
            span.set_status(Status::error(""));
        }
        done
    }

    fn span(&self, operation: &Operation, batch_size: usize) -> Span {
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            "store",
            otel.name = operation.span,
            otel.kind = "client",
            db.system.name = self.system,
            db.operation.name = operation.name,
            db.collection.name = "users",
        );
        for attribute in &self.place {
            span.set_attribute(attribute.key.clone(), attribute.value.clone());
        }
        if batch_size > 1 {
            span.set_attribute("db.operation.batch.size", i64::try_from(batch_size).unwrap_or(i64::MAX));
        }
        span
    }
}

/// **Invariant:** no operation begins after its deadline.
fn check(deadline: Deadline) -> Result<(), Error> {
    if deadline.is_over() { Err(Error::DeadlineExceeded) } else { Ok(()) }
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
impl<S: Store> Store for Instrumented<S> {
    /// Neither timed nor a span: it takes less than either.
    fn get_cached(&self, id: &UserId) -> Option<Arc<User>> {
        self.store.get_cached(id)
    }

    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        self.run(&self.operations.get, deadline, 1, self.store.get(key, deadline)).await
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        let work = self.store.batch_get(ids, deadline);
        self.run(&self.operations.batch_get, deadline, ids.len(), work).await
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        self.run(&self.operations.list, deadline, 1, self.store.list(after, size, deadline)).await
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        self.run(&self.operations.write, deadline, 1, self.store.write(write, deadline)).await
    }

    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error> {
        check(deadline)?;
        self.store.log_head(deadline).await
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.run(&self.operations.changes, deadline, 1, self.store.changes(after, limit, deadline)).await
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
