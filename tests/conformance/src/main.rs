//! Serves the services of two test suites on this project's listener and layers.
//!
//! Without arguments it is what `connectconformance` starts: it reads how to serve from
//! standard input, and writes where it serves to standard output. With `--interop` it serves
//! gRPC's interop cases, over TLS where a certificate and a key are named, and prints its port.
//! SIGTERM ends it.

mod calls;
mod conformance;
mod interop;
mod methods;
mod plain_errors;
mod router;

#[allow(dead_code, clippy::all, clippy::pedantic, reason = "generated, and most of it is for other roles")]
mod proto {
    pub mod conformance {
        include!(concat!(env!("OUT_DIR"), "/connectrpc.conformance.v1.rs"));
    }
    pub mod testing {
        include!(concat!(env!("OUT_DIR"), "/grpc.testing.rs"));
    }
}

use std::{
    env,
    error::Error,
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use prost::Message;
use prost_types::FileDescriptorSet;
use user_service::{
    app::control_runtime,
    config::Config,
    edge::{Edge, Schema},
    layers::{self, InFlight},
    listener::{Listener, RunningListener},
    signals::Signals,
    telemetry::TraceConfig,
};

use self::{
    plain_errors::PlainErrors,
    proto::conformance::{ServerCompatRequest, ServerCompatResponse},
    router::SuiteRouter,
};

/// The largest request of the interop cases has 271,828 bytes.
const INTEROP_MAX_REQUEST_BYTES: usize = 4 * 1_024 * 1_024;

/// A suite may leave idle connections, and none is worth a longer wait.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

type BoxError = Box<dyn Error>;

fn main() -> Result<(), BoxError> {
    let base = Config {
        grpc_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_request_bytes: INTEROP_MAX_REQUEST_BYTES,
        call_log: false,
        ..Config::default()
    };
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => for_the_runner(base),
        ["--interop"] => for_interop(&base),
        ["--interop", certificate, key] => for_interop(&Config {
            tls_cert_file: PathBuf::from(certificate).into(),
            tls_key_file: PathBuf::from(key).into(),
            ..base
        }),
        _ => Err("usage: suite-server [--interop [CERTIFICATE KEY]]".into()),
    }
}

fn for_interop(config: &Config) -> Result<(), BoxError> {
    serve(config, |addr| writeln!(io::stdout(), "{}", addr.port()))
}

fn for_the_runner(base: Config) -> Result<(), BoxError> {
    let asked: ServerCompatRequest = read_message()?;
    let folder = tempfile::tempdir()?;
    let mut config = base;
    let mut pem_cert = Vec::new();
    if asked.message_receive_limit != 0 {
        config.max_request_bytes = usize::try_from(asked.message_receive_limit)?;
    }
    if asked.use_tls {
        let creds = asked.server_creds.ok_or("the runner sends a certificate where it asks for TLS")?;
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).map(|()| path.into())
        };
        config.tls_cert_file = write("server.pem", &creds.cert)?;
        config.tls_key_file = write("server.key", &creds.key)?;
        if !asked.client_tls_cert.is_empty() {
            config.tls_client_ca_file = write("clients.pem", &asked.client_tls_cert)?;
        }
        pem_cert = creds.cert;
    }
    serve(&config, |addr| {
        let host = addr.ip().to_string();
        write_message(&ServerCompatResponse { host, port: addr.port().into(), pem_cert })
    })
}

/// Serves until SIGTERM. `listening` is told the address.
fn serve(config: &Config, listening: impl FnOnce(SocketAddr) -> io::Result<()>) -> Result<(), BoxError> {
    control_runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let (addr, running) = start(config)?;
        listening(addr)?;
        signals.next().await;
        running.drain(DRAIN_TIMEOUT).await;
        Ok(())
    })
}

fn start(config: &Config) -> Result<(SocketAddr, RunningListener), BoxError> {
    let listener = Listener::bind(config)?;
    let addr = listener.local_addr();
    let traces = TraceConfig { sampler: None, follows_callers: false };
    let router = SuiteRouter::new(config.max_request_bytes);
    let (stack, early) = layers::stack(router, methods::find, config, traces, InFlight::default(), None);
    let files = FileDescriptorSet::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..])?;
    let service = Edge::new(PlainErrors(stack), Schema::new(files)?, config);
    Ok((addr, listener.serve(&service, early.as_ref(), &(Arc::new(|_| ()) as _))?))
}

/// Reads a message behind its length in four bytes.
fn read_message<M: Message + Default>() -> Result<M, BoxError> {
    let mut length = [0; 4];
    io::stdin().read_exact(&mut length)?;
    let mut message = Vec::new();
    io::stdin().take(u32::from_be_bytes(length).into()).read_to_end(&mut message)?;
    Ok(M::decode(&*message)?)
}

fn write_message(message: &impl Message) -> io::Result<()> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut stdout = io::stdout();
    stdout.write_all(&length.to_be_bytes())?;
    stdout.write_all(&message)?;
    stdout.flush()
}
