//! Every metric that the process can show: the one place that knows their help
//! texts, and what docs/METRICS.md is written from.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// One metric.
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    /// The names of its labels, those of a histogram's buckets apart.
    pub labels: &'static [&'static str],
    pub shown: Shown,
    /// A sentence or two, with the unit where the name has none.
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Who has a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Always,
    /// Where `metric_names` has go-grpc-prometheus' names.
    GrpcPrometheus,
    /// Where `metric_names` has OpenTelemetry's names.
    OpenTelemetry,
    /// Where the port has TLS.
    Tls,
    /// Where spans are sent.
    Traces,
    /// On a store that is not in memory.
    Durable,
    Sqlite,
    Postgres,
    /// Where there is a policy.
    Auth,
    /// Where a caller's share is limited.
    Shares,
    /// Where audit lines are written.
    Audit,
}

/// Makes the table from rows of `name kind [labels] shown help`.
macro_rules! metrics {
    ($($name:literal $kind:ident [$($label:literal),*] $shown:ident $help:literal;)+) => {
        /// Every metric, in the order of the documentation.
        pub static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            shown: Shown::$shown,
            help: $help,
        },)+];
    };
}

metrics! {
    "grpc_server_started_total" Counter ["grpc_type", "grpc_service", "grpc_method"] GrpcPrometheus
        "Calls that have begun.";
    "grpc_server_handled_total" Counter ["grpc_type", "grpc_service", "grpc_method", "grpc_code"] GrpcPrometheus
        "Calls that have ended, by code.";
    "grpc_server_handling_seconds" Histogram ["grpc_type", "grpc_service", "grpc_method"] GrpcPrometheus
        "How long calls took that ended OK.";
    "grpc_server_msg_received_total" Counter ["grpc_type", "grpc_service", "grpc_method"] GrpcPrometheus
        "Messages received.";
    "grpc_server_msg_sent_total" Counter ["grpc_type", "grpc_service", "grpc_method"] GrpcPrometheus
        "Messages sent.";
    "rpc_server_call_duration_seconds" Histogram
        ["rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type"] OpenTelemetry
        "How long calls took, by code; `error_type` is there where the server failed.";
    "grpc_server_msg_received_bytes" Histogram ["grpc_type", "grpc_service", "grpc_method"] Always
        "How large received messages were, without their prefix; of a method that has had one.";
    "grpc_server_msg_sent_bytes" Histogram ["grpc_type", "grpc_service", "grpc_method"] Always
        "How large sent messages were, without their prefix; of a method that has had one.";
    "grpc_server_calls_in_flight" Gauge ["grpc_type", "grpc_service", "grpc_method"] Always
        "Calls that have begun and not ended; those of the streaming types are the active streams.";
    "grpc_server_admission_limit" Gauge ["kind"] Always
        "How many calls may be in flight before calls are shed.";
    "grpc_server_admission_in_flight" Gauge ["kind"] Always
        "Calls in flight that count against the limit.";
    "grpc_server_admission_shed_total" Counter ["kind"] Always
        "Calls turned away because the limit was reached.";
    "user_service_protocol_calls_total" Counter ["protocol"] Always
        "Calls that have begun, by what their callers speak: `grpc`, `grpc_web` or `connect`.";
    "grpc_server_panics_total" Counter [] Always
        "Calls that panicked and were answered with INTERNAL.";
    "grpc_server_connections" Gauge ["state"] Always
        "Connections that are open, by state.";
    "user_service_open_connections" Gauge ["protocol"] Always
        "Connections that are open, by protocol: `http/1` or `http/2`.";
    "grpc_server_connections_limit" Gauge [] Always
        "The limit on open connections.";
    "grpc_server_connections_accepted_total" Counter [] Always
        "Connections accepted.";
    "grpc_server_connections_refused_total" Counter [] Always
        "Connections closed immediately, because the limit was reached.";
    "grpc_server_connections_closed_total" Counter ["reason"] Always
        "Connections ended, by reason.";
    "grpc_server_calls_cut_total" Counter [] Always
        "Calls cut with their connection: by its age, by a drain, or because it did not read its answers.";
    "user_service_accept_errors_total" Counter ["port"] Always
        "Connections that could not be accepted, as where descriptors are short.";
    "user_service_admin_connections_refused_total" Counter [] Always
        "Connections to the admin port closed immediately, because too many are open, or too many of one address.";
    "grpc_server_tls_handshakes_total" Counter ["outcome"] Tls
        "TLS handshakes that have ended: `ok`, or why they failed, as docs/OPERATIONS.md explains.";
    "user_service_tls_certificate_not_before_timestamp_seconds" Gauge [] Tls
        "When the port's certificate became valid, in Unix time.";
    "user_service_tls_certificate_not_after_timestamp_seconds" Gauge [] Tls
        "When the port's certificate, or one of its chain, expires first, in Unix time.";
    "user_service_tls_reloads_total" Counter ["outcome"] Tls
        "Changed sets of TLS files: those that went `live` and those that were `refused`.";
    "user_service_tls_files_refused" Gauge [] Tls
        "1 while the TLS files are not good and earlier ones are served, 0 otherwise.";
    "user_service_lingering_closes_total" Counter ["port", "outcome"] Always
        "How closes ended, by what came first: the `peer` closed; it had everything and `stayed`; it `flooded` the server; or part of what was written is `unacknowledged`.";
    "user_service_policed_connections_total" Counter ["port", "frames"] Always
        "Connections ended because their peer sent too many frames that cost work, by the kind that cost most; `incomplete` are those that did not send the rest of a frame in time.";
    "user_service_event_loop_lag_seconds" Histogram [] Always
        "How late serving threads woke for a timer of 200 ms, some 1 ms of which is the timer's own.";
    "user_service_health_serving" Gauge ["name"] Always
        "1 where a health name is SERVING, 0 where it is not; the empty name is called `readiness`.";
    "user_service_draining" Gauge [] Always
        "1 once the process was told to end, 0 before.";
    "user_service_store_operation_duration_seconds" Histogram ["operation"] Always
        "How long an operation of the store took, from the call to its answer; reads that the cache answers apart.";
    "user_service_store_queue_depth" Gauge [] Durable
        "Writes that wait for the store's writer.";
    "user_service_store_queue_limit" Gauge [] Durable
        "How many writes may wait before more are turned away.";
    "user_service_store_batch_size" Histogram [] Durable
        "Writes in one commit of the store.";
    "user_service_store_commit_seconds" Gauge [] Durable
        "What a commit took lately, by which the queue forecasts when a write would be durable.";
    "user_service_store_writes_refused_total" Counter ["reason"] Durable
        "Writes that were not begun because they could not be durable in time, by reason: the queue is `full`, they would `wait` for more than 100 ms of earlier batches, their `deadline` is too close, or a slow commit made them late in the queue (`expired`).";
    "user_service_store_reads" Gauge ["state"] Durable
        "Reads of PostgreSQL, and larger ones of SQLite: `in_flight` (begun and not ended) and `queued` (because too many are in flight).";
    "user_service_store_read_seconds" Gauge [] Durable
        "What a larger read (BatchGetUsers, a page of ListUsers) took lately, by which the queue forecasts when the next one would end.";
    "user_service_store_read_queue_limit" Gauge [] Durable
        "How many larger reads may wait, because of that, before more are turned away.";
    "user_service_store_reads_refused_total" Counter ["reason"] Durable
        "Larger reads that were not begun because they would not end in time, by reason: they would `wait` for earlier ones for more than half of their time (between 0.5 and 2 s) and more than such a read takes; their `deadline` is too close; or slower reads than before made them late in the queue (`expired`).";
    "user_service_store_writable" Gauge [] Always
        "1 where the store takes writes, 0 where it does not.";
    "user_service_store_writer_panics_total" Counter [] Durable
        "Panics of the store's writer, each of which costs the batch that it happened in.";
    "user_service_store_cache_lookups_total" Counter ["result"] Sqlite
        "Reads of one user by id, by whether the cache had it.";
    "user_service_store_cache_bytes" Gauge [] Sqlite
        "What the users in the cache weigh, in bytes.";
    "user_service_store_connections" Gauge ["use"] Postgres
        "Connections to the database that are open, by what they are for.";
    "user_service_store_connections_limit" Gauge ["use"] Postgres
        "How many connections to the database there are when all is well.";
    "user_service_store_connects_total" Counter ["outcome"] Postgres
        "Attempts to connect to the database: at the start, and whenever a connection is lost.";
    "user_service_store_retries_total" Counter ["operation"] Postgres
        "Reads and batches of writes that were made again, as their connection broke or others came first.";
    "user_service_imported_total" Counter ["outcome"] Always
        "Users of imports: `created`, `unchanged` as they were there already, or `refused`.";
    "user_service_watches" Gauge [] Always
        "Watches that are open.";
    "user_service_watches_cut_total" Counter ["reason"] Always
        "Watches that the service ended: `too_slow`, `expired` (what comes next was cleared away), or `store` (which is away).";
    "user_service_feed_delay_seconds" Histogram [] Always
        "The age of a change when it was read for the watches.";
    "user_service_feed_lag_changes" Gauge [] Always
        "How many changes the slowest of the watches is behind that are served from the buffer.";
    "user_service_feed_buffer_bytes" Gauge [] Always
        "What the latest changes weigh that watches are served from, in bytes.";
    "user_service_feed_buffer_limit_bytes" Gauge [] Always
        "What they may weigh; a watch that falls behind them is ended.";
    "user_service_trace_spans_total" Counter ["outcome"] Traces
        "Spans: `sent` and taken by the collector, `failed` to be sent or refused by it, `dropped` because too many waited.";
    "user_service_log_lines_dropped_total" Counter [] Always
        "Log lines dropped because the log was not read in time.";
    "user_service_denials_total" Counter ["reason"] Auth
        "Calls that were denied, by reason: the fault of the token, `missing` credentials, `not_permitted` (no role for the method), or `not_own` (another user's record).";
    "user_service_auth_reloads_total" Counter ["file", "outcome"] Auth
        "Changes of the `policy` and of the keys (`jwks`): `loaded`, or `refused` because they cannot be used.";
    "user_service_auth_file_stale" Gauge ["file"] Auth
        "1 while what the file or `auth_jwks_url` says cannot be used and what it said before is in force, 0 otherwise.";
    "user_service_quota_refused_total" Counter ["limit"] Shares
        "Calls and connections refused because a caller has its share, by limit: `calls_in_flight`, `call_rate` or `connections`.";
    "user_service_audit_lines_lost_total" Counter ["reason"] Audit
        "Audit lines that were not written: the queue was full (`queue_full`), or the stream did not take them (`write_failed`).";
    "user_service_build_info" Gauge ["version"] Always
        "Always 1; says which version runs.";
    "process_cpu_seconds_total" Counter [] Always
        "CPU time spent.";
    "process_start_time_seconds" Gauge [] Always
        "When the process started, in Unix time.";
    "process_max_fds" Gauge [] Always
        "How many file descriptors may be open.";
    "process_open_fds" Gauge [] Always
        "How many file descriptors are open.";
    "process_resident_memory_bytes" Gauge [] Always
        "Memory that is resident.";
    "process_virtual_memory_bytes" Gauge [] Always
        "Memory that is mapped.";
    "process_threads" Gauge [] Always
        "Threads.";
}

/// Gives the recorder every help text.
pub fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
}

/// The metric of this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::config::docs;

    fn shown(shown: Shown) -> &'static str {
        match shown {
            Shown::Always => "always",
            Shown::GrpcPrometheus => "`metric_names` is `both` or `grpc_prometheus`",
            Shown::OpenTelemetry => "`metric_names` is `both` or `opentelemetry`",
            Shown::Tls => "TLS",
            Shown::Traces => "spans are sent",
            Shown::Durable => "SQLite, PostgreSQL",
            Shown::Sqlite => "SQLite",
            Shown::Postgres => "PostgreSQL",
            Shown::Auth => "`auth_policy_file` is set",
            Shown::Shares => "a share is limited",
            Shown::Audit => "`audit_log` is not `off`",
        }
    }

    fn table() -> String {
        let mut table =
            String::from("| metric | kind | labels | shown | what it is |\n|---|---|---|---|---|\n");
        for metric in METRICS {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (labels, kind, shown) = (labels.join(", "), metric.kind.name(), shown(metric.shown));
            writeln!(table, "| `{}` | {kind} | {labels} | {shown} | {} |", metric.name, metric.help).unwrap();
        }
        table
    }

    #[test]
    fn the_documented_metrics_are_those_of_the_table() {
        docs::compare("docs/METRICS.md", "metrics", &table());
    }

    #[test]
    fn names_end_as_prometheus_advises() {
        for metric in METRICS {
            let (name, counts) = (metric.name, metric.kind == MetricKind::Counter);
            assert_eq!(counts, name.ends_with("_total"), "{name}: counters end in _total, others do not");
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{name}: {}", metric.help);
        }
    }
}
