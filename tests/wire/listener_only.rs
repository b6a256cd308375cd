//! The listener alone, with a service that does as its paths say.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::support::TEST_TIMEOUT;
use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinHandle,
};
use user_service::{
    config::Config,
    listener::{ConnectionInfo, ConnectionRegistry, Drained, Listener, RequestBody, RunningListener},
    rpc::call::Inbound,
};

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A listener that serves a trivial service.
pub struct ListenerOnly {
    control: Runtime,
    running: Option<RunningListener>,
    registry: ConnectionRegistry,
    metrics: PrometheusHandle,
    gate: Arc<Semaphore>,
    ticked: Arc<Mutex<Vec<usize>>>,
    pub addr: SocketAddr,
}

impl ListenerOnly {
    pub fn serve(config: Config) -> Self {
        let grpc_addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(&Config { grpc_addr, ..config }).unwrap();
        let addr = listener.local_addr();
        let registry = listener.registry();
        let gate = Arc::new(Semaphore::new(0));
        let ticked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ticked);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let control = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let doors = gate.clone();
        let service = tower::service_fn(move |request| answer(request, doors.clone()));
        let running = metrics::with_local_recorder(&recorder, || {
            let _control = control.enter();
            listener.serve(&service, None, &(Arc::new(move |thread| seen.lock().unwrap().push(thread)) as _))
        });
        Self { control, running: Some(running.unwrap()), registry, metrics, gate, ticked, addr }
    }

    /// Lets this many of the calls go on that wait.
    pub fn open(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// The threads that have ticked, in their order.
    pub fn ticked(&self) -> Vec<usize> {
        self.ticked.lock().unwrap().clone()
    }

    /// The connections that are open.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.registry.listed()
    }

    /// Begins a drain.
    pub fn drain(&mut self, drain_timeout: Duration) -> JoinHandle<Drained> {
        self.control.spawn(self.running.take().unwrap().drain(drain_timeout))
    }

    pub fn wait<T>(&self, task: JoinHandle<T>) -> T {
        let limited = async { tokio::time::timeout(TEST_TIMEOUT, task).await };
        self.control.block_on(limited).expect("it ends in time").unwrap()
    }

    /// The value of a series, named with its labels.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    pub fn wait_for_metric(&self, series: &str, value: u64) {
        until(&format!("{series} is {value}"), || self.metric(series) == value);
    }
}

/// The series of the connections that ended for a reason.
pub fn closed(reason: &str) -> String {
    format!("grpc_server_connections_closed_total{{reason=\"{reason}\"}}")
}

/// Waits for what announces itself to nobody.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + TEST_TIMEOUT;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

async fn answer(
    request: Request<Inbound<RequestBody>>,
    gate: Arc<Semaphore>,
) -> Result<Response<StreamBody<Chunks>>, Infallible> {
    let mut length = None;
    let waits = match request.uri().path() {
        "/wait" => {
            gate.acquire().await.unwrap().forget();
            false
        }
        "/length" => {
            let mut body = request.into_body().body;
            let mut received = 0;
            while let Some(frame) = body.frame().await {
                // As the layers do: what has failed is never answered.
                let Ok(frame) = frame else { return std::future::pending().await };
                received += frame.data_ref().map_or(0, Bytes::len);
            }
            length = Some(received);
            false
        }
        path => path == "/wait-in-body",
    };
    let body = async move {
        if waits {
            gate.acquire().await.unwrap().forget();
        }
        let thread = thread::current().name().unwrap_or_default().to_owned();
        Ok(Frame::data(Bytes::from(length.map_or(thread, |length: usize| length.to_string()))))
    };
    Ok(Response::new(StreamBody::new(Box::pin(futures_util::stream::once(body)))))
}
