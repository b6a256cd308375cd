//! Every setting of the service, and where its value comes from.
//!
//! The table below is the only place that knows the settings: the struct, the
//! keys of the file, the environment's names, the flags and the table in
//! docs/CONFIGURATION.md are all made from it.
//!
//! **Invariant:** a configuration that parses is one that the service can run with, and no
//! message about one shows a secret. It deliberately reads no environment by itself and
//! opens no store: its inputs are given to it.

mod audit_log;
mod checks;
#[cfg(test)]
pub mod docs;
mod errors;
mod file;
mod jwks_url;
mod load;
mod postgres;
mod postgres_options;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod web;

use std::{net::SocketAddr, time::Duration};

pub use audit_log::AuditLog;
pub use errors::{ConfigErrors, HIDDEN, quote};
pub use jwks_url::{JwksUrl, OptionalJwksUrl};
pub use load::{Inputs, Loaded, Source};
pub use postgres::{PostgresUrl, TlsMode};
pub use table::Setting;
pub use value::{ClientAuth, LogFormat, MetricNames, OptionalPath, OptionalText, StoreUrl};
pub use web::{AllowedOrigins, WebProtocols};

/// What the environment's names begin with. Not `USER_SERVICE_`: Kubernetes sets
/// variables of that name in every pod of a namespace with a Service called `user-service`.
pub const ENV_PREFIX: &str = "USERSVC_";

/// The target of audit lines, which go to another stream than the log.
pub const AUDIT_TARGET: &str = "user_service::audit";

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const MIB: u64 = 1_024 * 1_024;

table::settings! {
    "Addresses" {
        /// Where gRPC is served. Port 0 takes a free one.
        grpc_addr: SocketAddr = SocketAddr::from(([0u16; 8], 50_051));
        /// Where `/metrics`, `/livez`, `/readyz` and health are served to operators. Port 0 takes a free one.
        admin_addr: SocketAddr = SocketAddr::from(([0u16; 8], 9_464));
        /// Whether the article's own contract is served next to `user.v1`.
        article_api: bool = true;
        /// How many threads serve connections. 0: one for each CPU that may be used.
        serving_threads: usize = 0, 0..=1_024;
    }
    "TLS" {
        /// The certificate of the gRPC port and its chain (PEM, the certificate first). Without it the port speaks plain text. Read again when it changes, as the other files of TLS are.
        tls_cert_file: OptionalPath = OptionalPath::NONE;
        /// The key of that certificate (PEM, without a passphrase).
        tls_key_file: OptionalPath = OptionalPath::NONE;
        /// The authorities (PEM) that clients' certificates are checked with. Without it clients are asked for none.
        tls_client_ca_file: OptionalPath = OptionalPath::NONE;
        /// Whether a client without a certificate is refused (`required`) or served without an identity (`optional`). A certificate that does not pass is refused either way.
        tls_client_auth: ClientAuth = ClientAuth::Required;
        /// The authorities (PEM) of which one must vouch for the port's own certificate, at the start and whenever the files change. Without it any authority will do.
        tls_issuer_ca_file: OptionalPath = OptionalPath::NONE;
        /// How often the files of TLS are looked at. Changed files that are not good are refused, and the ones before stay.
        tls_reload_interval: Duration = Duration::from_secs(5), 100..=DAY_MS;
    }
    "Connections" {
        /// The limit on open connections. 0: 80% of the limit on open files.
        max_connections: usize = 0, 0..=1_048_576;
        /// How many calls one connection may have in flight. Of more than 100, a new connection has its share of `max_unary_calls` where that is less, and 100 at least.
        max_concurrent_streams: u32 = 100, 1..=65_536;
        /// How many streams of one connection the server may have to reset because its client broke the rules of HTTP/2, as by a malformed request or by more calls than `max_concurrent_streams`, before the connection is closed. The streams that a client resets itself are not counted here, but policed as frames.
        max_stream_resets: usize = 1_024, 1..=1_048_576;
        /// How large the headers of one call may be, in bytes.
        max_header_list_bytes: u32 = 16 * 1_024, 1_024..=MIB;
        /// How long a new connection may take to begin speaking HTTP, its TLS handshake included.
        handshake_timeout: Duration = Duration::from_secs(10), 1..=DAY_MS;
        /// How long a connection may live before its client is asked to open another, give or take a tenth. 0: for ever.
        max_connection_age: Duration = Duration::from_mins(30), 0..=365 * DAY_MS;
        /// How long the calls of a connection that is too old may go on.
        max_connection_age_grace: Duration = Duration::from_mins(1), 0..=DAY_MS;
        /// How long a connection may have no call before it is closed. 0: for ever.
        max_connection_idle: Duration = Duration::from_mins(15), 0..=365 * DAY_MS;
        /// How often a silent client is pinged. 0: never.
        keepalive_interval: Duration = Duration::from_mins(1), 0..=DAY_MS;
        /// How long a client may take to answer a ping before its connection is closed.
        keepalive_timeout: Duration = Duration::from_secs(20), 1..=DAY_MS;
    }
    "Calls" {
        /// How many unary calls may be in flight; more are turned away.
        max_unary_calls: usize = 2_048, 1..=1_048_576;
        /// How many streaming calls may be in flight; more are turned away.
        max_streaming_calls: usize = 1_024, 1..=1_048_576;
        /// The deadline of a unary call that brings none.
        default_timeout: Duration = Duration::from_secs(10), 1..=DAY_MS;
        /// The longest deadline of a unary call, whatever it asks for.
        max_timeout: Duration = Duration::from_mins(1), 1..=DAY_MS;
        /// How large one request message may be, in bytes.
        max_request_bytes: usize = 64 * 1_024, 1_024..=64 * MIB;
    }
    "Web" {
        /// The protocols that the port serves next to gRPC: `grpc_web`, `connect`, both with a comma between them, or `none`.
        web_protocols: WebProtocols = WebProtocols::ALL;
        /// The origins of web pages that may call from browsers, such as `https://app.example.com`, with a comma between them; `*` stands for all. Without one, browsers let only pages of the same origin call.
        cors_allowed_origins: AllowedOrigins = AllowedOrigins::NONE;
    }
    "Identity and rules" {
        /// The policy (TOML): which identities have which roles, and which methods a role may call. Read again when it changes. Without one, every peer may call every method.
        auth_policy_file: OptionalPath = OptionalPath::NONE;
        /// The public keys (JWK Set) that bearer tokens are verified with: RSA, P-256 and Ed25519. Read again when it changes.
        auth_jwks_file: OptionalPath = OptionalPath::NONE;
        /// The same keys by the issuer's URL, in place of the file: https, or http on this machine. Fetched at the start, which fails without them, and again.
        auth_jwks_url: OptionalJwksUrl = OptionalJwksUrl::NONE;
        /// The authorities (PEM) that the certificate of `auth_jwks_url` is checked with. Without it: the public ones.
        auth_jwks_ca_file: OptionalPath = OptionalPath::NONE;
        /// How often the keys of `auth_jwks_url` are fetched. A token of an unknown key has them fetched up to 30 times as often.
        auth_jwks_refresh: Duration = Duration::from_mins(5), 1_000..=DAY_MS;
        /// The issuer of tokens: what `iss` must be.
        auth_issuer: OptionalText = OptionalText::NONE;
        /// The audience of tokens: what `aud` must be or hold.
        auth_audience: OptionalText = OptionalText::NONE;
        /// How far the clock of the issuer may be off: a token is good for so much longer than it says, and so much earlier. Whole seconds.
        auth_leeway: Duration = Duration::from_secs(30), 0..=300_000;
        /// Where a line goes for each write and each denied call: `off`, `stderr`, or `file:` and a path. A new file may be read by its owner and its group alone.
        audit_log: AuditLog = AuditLog::Off;
    }
    "Shares" {
        /// How many calls one caller may have in flight: an identity, or the address of its peer where it has none. 0: no limit.
        max_calls_per_caller: usize = 0, 0..=1_048_576;
        /// How many calls one caller may begin in a second; after a quiet second it may begin as many immediately. 0: no limit.
        max_call_rate_per_caller: u32 = 0, 0..=1_000_000;
        /// How many connections one address may have, or one /64 of IPv6. 0: no limit.
        max_connections_per_address: usize = 0, 0..=1_048_576;
    }
    "Watches" {
        /// How long a watch may be quiet before it is sent a heartbeat.
        watch_heartbeat: Duration = Duration::from_secs(30), 100..=DAY_MS;
        /// The size in bytes of the in-memory change buffer, which serves watches. A watch that falls behind the buffer is ended, and can be resumed.
        watch_buffer_bytes: usize = 8 * 1_024 * 1_024, 64 * 1_024..=1_024 * MIB;
    }
    "Shutdown" {
        /// How long new calls are still served after SIGTERM, while clients and proxies learn of it.
        shutdown_delay: Duration = Duration::ZERO, 0..=DAY_MS;
        /// How long calls in flight may go on after that before they are cut.
        drain_timeout: Duration = Duration::from_secs(20), 0..=DAY_MS;
        /// How long spans may take to be sent off at the very end.
        flush_timeout: Duration = Duration::from_secs(3), 0..=DAY_MS;
    }
    "Store" {
        /// Where users are kept: `memory:`, `sqlite:PATH` or `postgres://USER@HOST[,HOST]/DATABASE`.
        store_url: StoreUrl = StoreUrl::Sqlite("user-service.db".into());
        /// How many writes may be under way, most of them waiting for the store; more are turned away. Fewer than `max_unary_calls`, and half of it at most where this is not set, so that reads go on while writes are stuck.
        store_queue: usize = 1_024, 1..=1_048_576;
        /// How much memory a store on disk may use to keep users at hand, in bytes. 0: none.
        store_cache_bytes: usize = 8 * 1_024 * 1_024, 0..=1_024 * 1_024 * MIB;
        /// The file that holds the password of a PostgreSQL store; read for each connection.
        store_password_file: OptionalPath = OptionalPath::NONE;
        /// The file of authorities (PEM) that a PostgreSQL store's certificate is checked with, for `sslmode=verify-ca` and `verify-full`.
        store_ca_file: OptionalPath = OptionalPath::NONE;
        /// The certificate (PEM, with its chain) that is shown to PostgreSQL; read for each connection, as its key and the authorities are.
        store_cert_file: OptionalPath = OptionalPath::NONE;
        /// The key of that certificate (PEM, without a passphrase).
        store_key_file: OptionalPath = OptionalPath::NONE;
        /// How many connections to PostgreSQL reads share; writes have one more.
        store_connections: usize = 4, 1..=256;
        /// How long connecting to PostgreSQL, or one of its answers, may take.
        store_timeout: Duration = Duration::from_secs(5), 100..=DAY_MS;
        /// How many probes of the store, one a second, have to fail in a row before health says so and calls go elsewhere: how long a blip of a database that all replicas share may last.
        store_probe_failures: usize = 2, 1..=3_600;
        /// Whether statements are prepared once for each connection to PostgreSQL. A pooler between the two is noticed, and then they are not, whatever this says.
        store_prepared_statements: bool = true;
        /// How long the change log keeps a change: the longest that a watch may be interrupted and still be resumed.
        change_log_retention: Duration = Duration::from_hours(7 * 24), 1_000..=3_650 * DAY_MS;
        /// How many changes the change log keeps, whatever their age; in memory, 100,000 at most.
        change_log_rows: usize = 10_000_000, 1_000..=1_000_000_000;
    }
    "Logs" {
        /// Which log lines are written: a level, or directives such as `info,user_service=debug`. Release builds have none below `info`.
        log_filter: String = "info".into();
        /// How log lines look; `auto` is text on a terminal and JSON elsewhere.
        log_format: LogFormat = LogFormat::Auto;
        /// Whether a line is logged for each finished call.
        call_log: bool = true;
    }
    "Metrics" {
        /// Whose names the metrics of calls have: those of go-grpc-prometheus, which the dashboard in `deploy/` needs, those of OpenTelemetry, or both. `none` measures nothing at all: `/metrics` then says what the process takes of the machine, and no more.
        metric_names: MetricNames = MetricNames::Both;
    }
}
