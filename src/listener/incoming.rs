//! Accepting connections from a port. Both ports use it.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use metrics::{Counter, counter};
use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::util::{
    backoff::Backoff,
    log_throttle::{Admitted, LogThrottle},
};

/// The pauses while descriptors or memory are short. Without them the loop would spin on
/// a port that stays readable.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How often a warning about failed accepts may be logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The connections that arrive at a port.
pub struct Incoming {
    listener: TcpListener,
    port: &'static str,
    errors: Counter,
    backoff: Backoff,
    throttle: LogThrottle,
}

impl Incoming {
    /// Of a bound port; `port` names it in metrics and in the log.
    pub fn new(listener: TcpListener, port: &'static str) -> Self {
        let errors = counter!("user_service_accept_errors_total", "port" => port);
        let backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        Self { listener, port, errors, backoff, throttle: LogThrottle::new(1, LOG_INTERVAL) }
    }

    /// The next connection, and its peer. No connection is lost where the returned
    /// future is dropped.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.backoff.reset();
                    return accepted;
                }
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    self.errors.increment(1);
                    if let Some(Admitted { unlogged }) = self.throttle.admit(Instant::now()) {
                        let port = self.port;
                        tracing::warn!(port, %error, unlogged, "connections cannot be accepted; trying again");
                    }
                    sleep(self.backoff.next_pause()).await;
                }
            }
        }
    }

    pub fn into_listener(self) -> TcpListener {
        self.listener
    }
}

/// Errors that accept(2) passes on from the connection that it would have returned. They
/// say nothing about the next connection.
fn is_of_one_peer(error: &io::Error) -> bool {
    const PEERS: [Errno; 9] = [
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
    ];
    error.kind() == ErrorKind::ConnectionReset
        || PEERS.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use socket2::{Domain, Socket, Type};
    use tokio::{runtime::Builder, time::timeout};

    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_no_fault_of_a_peer() {
        assert!(!is_of_one_peer(&Errno::MFILE.into()));
        assert!(!is_of_one_peer(&Errno::NFILE.into()));
        assert!(!is_of_one_peer(&Errno::NOMEM.into()));
        assert!(is_of_one_peer(&Errno::CONNABORTED.into()));
    }

    #[test]
    fn a_port_that_cannot_accept_is_tried_with_pauses_of_up_to_a_second() {
        let minute = async {
            // accept(2) fails with EINVAL on a socket that does not listen.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut incoming = Incoming::new(TcpListener::from_std(socket.into()).unwrap(), "admin");
            timeout(Duration::from_mins(1), incoming.next()).await.unwrap_err();
        };
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || runtime.block_on(minute));
        let text = recorder.handle().render();
        // Eight pauses take 1.275 s, and each further one takes a second.
        assert!(text.contains("user_service_accept_errors_total{port=\"admin\"} 67\n"), "{text}");
    }
}
