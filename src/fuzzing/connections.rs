//! Whole connections to a listener in this process, with the layers and the router behind it.
//!
//! The first byte of an input says where the rest is divided into two writes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    panic,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::runtime;

use super::calls;
use crate::{
    layers::{self, InFlight},
    listener::Listener,
    rpc::methods,
    telemetry::TraceConfig,
};

/// How long the server may take to end a connection that its peer has ended.
const END_TIMEOUT: Duration = Duration::from_mins(1);

/// Panics on serving threads, which end a connection and nothing else.
static PANICS: AtomicUsize = AtomicUsize::new(0);

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let config = calls::config();
    let config = crate::config::Config {
        grpc_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        serving_threads: 1,
        max_timeout: Duration::from_secs(1),
        ..config
    };
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name().is_some_and(|name| name.starts_with("serve-")) {
            PANICS.fetch_add(1, Relaxed);
        }
        before(info);
    }));
    let listener = Listener::bind(&config).expect("there is a free port");
    let addr = listener.local_addr();
    let traces = TraceConfig { sampler: None, follows_callers: true };
    let (service, early) =
        layers::stack(calls::router(&config), methods::find, &config, traces, InFlight::default(), None);
    thread::spawn(move || {
        let control = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        control.block_on(async {
            let _running =
                listener.serve(&service, early.as_ref(), &(Arc::new(|_| ()) as _)).expect("threads start");
            std::future::pending::<()>().await;
        });
    });
    addr
});

pub fn run(input: &[u8]) {
    let Some((divide, bytes)) = input.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*divide) / 256);
    let mut peer = TcpStream::connect(*SERVER).expect("the listener takes connections");
    peer.set_nodelay(true).expect("a socket has this option");
    peer.set_read_timeout(Some(END_TIMEOUT)).expect("a socket has this option");
    // A server that has had enough resets the connection.
    let _ = peer.write_all(first).and_then(|()| peer.write_all(second));
    let _ = peer.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = peer.read_to_end(&mut answers) {
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it is not ended");
    }
    assert_eq!(PANICS.load(Relaxed), 0, "a serving thread panicked");
}
