//! Every setting of the service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The effective configuration. docs/CONFIGURATION.md explains each key.
#[derive(Clone, Debug)]
pub struct Config {
    pub grpc_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    pub store_url: StoreUrl,
    pub article_api: bool,
    /// 0: as many as there are CPUs to use.
    pub serving_threads: usize,

    /// 0: 80% of the descriptor limit.
    pub max_connections: usize,
    pub max_concurrent_streams: u32,
    pub max_stream_resets: usize,
    pub max_header_list_bytes: u32,
    pub handshake_timeout: Duration,
    /// Zero: no maximum age. The same for the idle time.
    pub max_connection_age: Duration,
    pub max_connection_age_grace: Duration,
    pub max_connection_idle: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,

    pub max_unary_calls: usize,
    pub max_streaming_calls: usize,
    pub default_timeout: Duration,
    pub max_timeout: Duration,
    pub max_request_bytes: usize,

    pub shutdown_delay: Duration,
    pub drain_timeout: Duration,
    pub flush_timeout: Duration,

    pub store_queue: usize,
    pub change_log_retention: Duration,

    pub log_filter: String,
    pub log_format: LogFormat,
    /// One log line per finished call.
    pub call_log: bool,
}

/// Where users are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`
    Memory,
    /// `sqlite:PATH`
    Sqlite(PathBuf),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Json,
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::from(([0u16; 8], 50051)),
            admin_addr: SocketAddr::from(([0u16; 8], 9464)),
            store_url: StoreUrl::Sqlite("user-service.db".into()),
            article_api: true,
            serving_threads: 0,
            max_connections: 0,
            max_concurrent_streams: 100,
            max_stream_resets: 1_024,
            max_header_list_bytes: 16 * 1_024,
            handshake_timeout: Duration::from_secs(10),
            max_connection_age: Duration::from_mins(30),
            max_connection_age_grace: Duration::from_mins(1),
            max_connection_idle: Duration::from_mins(15),
            keepalive_interval: Duration::from_mins(1),
            keepalive_timeout: Duration::from_secs(20),
            max_unary_calls: 2_048,
            max_streaming_calls: 1_024,
            default_timeout: Duration::from_secs(10),
            max_timeout: Duration::from_mins(1),
            max_request_bytes: 64 * 1_024,
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
            flush_timeout: Duration::from_secs(3),
            store_queue: 4_096,
            change_log_retention: Duration::from_hours(7 * 24),
            log_filter: "info".into(),
            log_format: LogFormat::Auto,
            call_log: true,
        }
    }
}
