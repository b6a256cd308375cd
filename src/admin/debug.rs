//! Pages for loopback peers only: calls and connections in flight, and the log's
//! filter. `kubectl port-forward` is a loopback peer.
//!
//! Pages are tables of text, a header and then the oldest first, and end after
//! [`MAX_ROWS`] rows. Nothing on them is of a user's or a caller's making.

use std::{fmt::Write, net::SocketAddr};

use http::StatusCode;

use crate::{
    config::SETTINGS,
    layers::InFlight,
    listener::{ConnectionRegistry, Protocol},
    telemetry::LogFilter,
};

/// The most rows of a page.
const MAX_ROWS: usize = 1_000;

/// The longest log filter, in bytes.
pub const MAX_FILTER_BYTES: usize = 4_096;

/// What there is to look at and to change.
#[derive(Clone)]
pub struct DebugPages {
    pub calls: InFlight,
    pub connections: ConnectionRegistry,
    pub log_filter: LogFilter,
}

/// Whether a peer is on this machine, or in this pod.
pub fn is_loopback(peer: SocketAddr) -> bool {
    // On a port for both families, an address of the older one comes in a coat.
    peer.ip().to_canonical().is_loopback()
}

impl DebugPages {
    /// The page under this path, if there is one.
    pub fn page(&self, path: &str) -> Option<String> {
        match path {
            "/calls" => Some(self.calls()),
            "/connections" => Some(self.connections()),
            "/log_filter" => Some(self.log_filter.current() + "\n"),
            _ => None,
        }
    }

    fn calls(&self) -> String {
        table("AGE_MS\tMETHOD\tCONNECTION", &self.calls.listed(), |row, call| {
            write!(row, "{}\t{}\t{}", call.age.as_millis(), call.method, call.connection)
        })
    }

    fn connections(&self) -> String {
        table(
            "AGE_MS\tSTATE\tPROTOCOL\tTHREAD\tCALLS\tIDLE_MS\tCONNECTION",
            &self.connections.listed(),
            |row, connection| {
                let (age, idle) = (connection.age.as_millis(), connection.idle.as_millis());
                let (state, thread, calls) = (connection.state.name(), connection.thread, connection.calls);
                let protocol = connection.protocol.map_or("-", Protocol::name);
                write!(row, "{age}\t{state}\t{protocol}\t{thread}\t{calls}\t{idle}\t{}", connection.number)
            },
        )
    }

    /// Puts another filter in force.
    pub fn filter(&self, text: &[u8]) -> (StatusCode, String) {
        let Ok(text) = std::str::from_utf8(text) else {
            return (StatusCode::BAD_REQUEST, "the filter is not UTF-8\n".into());
        };
        let text = text.trim();
        // No directives are a filter as well: the one that lets no line through.
        let mut settings = SETTINGS.iter().filter(|setting| setting.name == "log_filter");
        let set = settings
            .try_for_each(|setting| setting.check(text))
            .and_then(|()| self.log_filter.set(text).map_err(|error| error.to_string()));
        match set {
            Ok(()) => (StatusCode::OK, self.log_filter.current() + "\n"),
            Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
        }
    }
}

fn table<T>(header: &str, rows: &[T], print: impl Fn(&mut String, &T) -> std::fmt::Result) -> String {
    let mut page = format!("{header}\n");
    for row in rows.iter().take(MAX_ROWS) {
        // A string takes every write.
        let _ = print(&mut page, row);
        page.push('\n');
    }
    if let Some(more @ 1..) = rows.len().checked_sub(MAX_ROWS) {
        let _ = writeln!(page, "and {more} more");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_local() {
        for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_loopback(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            assert!(!is_loopback(peer.parse().unwrap()), "{peer}");
        }
    }

    #[test]
    fn a_page_ends() {
        let page = table("N", &(0..MAX_ROWS + 7).collect::<Vec<_>>(), |row, n| write!(row, "{n}"));
        assert_eq!(page.lines().count(), 1 + MAX_ROWS + 1);
        assert!(page.ends_with("\n999\nand 7 more\n"), "{page}");
        assert_eq!(table("N", &[1], |row, n| write!(row, "{n}")), "N\n1\n");
    }
}
