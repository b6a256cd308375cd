use std::{
    future::{pending, poll_fn},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use h2::{Reason, client};
use http::{StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    listener::{
        connection_state::{ConnectionState, ThreadLoad},
        policing::PolicedIo,
    },
    rpc::{
        early_refusal::EarlyRefusal,
        goaway::ConnectionHandle,
        holdings::Holdings,
        methods::{self, Method},
    },
};

const INTERVAL: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Counts the writes to a connection.
struct CountWrites {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for CountWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountWrites {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

type Answer = Response<Full<Bytes>>;

/// `/now` is answered immediately, `/panic` by none, and everything else when it is dropped.
async fn answer(request: Request<IncomingBody>) -> Result<Answer, Infallible> {
    match request.uri().path() {
        "/now" => Ok(Response::new(Full::new(Bytes::from_static(b"answer")))),
        "/panic" => panic!("a service that panics"),
        _ => pending().await,
    }
}

/// A connection that is served.
struct Served {
    client: DuplexStream,
    /// How often was written to it.
    writes: Arc<AtomicUsize>,
    task: JoinHandle<Result<(), ConnectionError>>,
}

fn serve<S, B>(service: S, is_to_go: bool) -> Served
where
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Send
        + 'static,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    serve_unless(None, service, is_to_go)
}

fn serve_unless<S, B>(early: Option<EarlyAnswers>, service: S, is_to_go: bool) -> Served
where
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Send
        + 'static,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    let (client, inner) = duplex(64 * 1_024);
    let writes = Arc::default();
    let (io, observed) = PolicedIo::new(CountWrites { inner, writes: Arc::clone(&writes) }, Duration::MAX);
    let http2 = Http2 { h2: Builder::new(), keepalive_interval: INTERVAL, keepalive_timeout: TIMEOUT };
    let mut connection = http2.serve(io, service, early);
    if is_to_go {
        Pin::new(&mut connection).go_away(true);
    }
    let task = tokio::spawn(async move {
        poll_fn(|cx| {
            observed.begin_turn();
            connection.poll(cx, &observed)
        })
        .await
    });
    Served { client, writes, task }
}

async fn connect(stream: DuplexStream) -> client::SendRequest<Bytes> {
    let (sender, connection) = client::handshake(stream).await.unwrap();
    drop(tokio::spawn(connection));
    sender
}

/// What comes of it, unless it hangs.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_mins(1), future).await.expect("it hangs")
}

fn request(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://x{path}")).body(()).unwrap()
}

#[tokio::test]
async fn calls_that_come_together_are_answered_in_one_write() {
    let Served { client, writes, task: _task } = serve(service_fn(answer), false);
    let mut sender = connect(client).await;
    let (first, _) = sender.send_request(request("/now"), true).unwrap();
    assert_eq!(first.await.unwrap().status(), StatusCode::OK);
    let before = writes.load(Relaxed);
    let calls: Vec<_> = (0..20).map(|_| sender.send_request(request("/now"), true).unwrap().0).collect();
    for call in calls {
        let mut body = call.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "answer");
    }
    assert_eq!(writes.load(Relaxed) - before, 1);
}

/// Refuses every call, and counts them.
#[derive(Debug, Default)]
struct RefuseAll(AtomicUsize);

impl EarlyRefusal for RefuseAll {
    fn due(
        &self,
        _: &http::Method,
        _: &http::Uri,
        _: &http::HeaderMap,
        _: &ConnectionHandle,
    ) -> Option<&'static Method> {
        methods::METHODS.first()
    }

    fn refuse(&self, _: &'static Method, _: &http::HeaderMap, _: &ConnectionHandle) -> Response<()> {
        self.0.fetch_add(1, Relaxed);
        Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(()).unwrap()
    }
}

#[tokio::test]
async fn calls_are_refused_together_and_no_service_sees_them() {
    let (refusal, load) = (Arc::new(RefuseAll::default()), Arc::<ThreadLoad>::default());
    let state = ConnectionState::new(Arc::clone(&load), None, Instant::now(), Holdings::default());
    let early = EarlyAnswers::new(refusal.clone(), Arc::new(state));
    let Served { client, writes, task: _task } = serve_unless(Some(early), service_fn(answer), false);
    let mut sender = connect(client).await;
    let (mut calls, mut before) = (Vec::new(), 0);
    // The first one's answer tells that the handshake is over.
    for n in 0..=20 {
        let (call, mut body) = sender.send_request(request("/panic"), n % 2 == 0).unwrap();
        if n % 2 == 1 {
            body.send_data(Bytes::from_static(b"all of it"), true).unwrap();
        }
        calls.push(call);
        if n == 0 {
            assert_eq!(calls.remove(0).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
            before = writes.load(Relaxed);
        }
    }
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body().is_end_stream());
    }
    assert_eq!((refusal.0.load(Relaxed), writes.load(Relaxed) - before), (21, 1));
    assert_eq!(load.calls.load(Relaxed), 0, "none is in flight any more");
}

#[tokio::test]
async fn a_request_of_which_more_is_to_come_is_not_refused_early_and_loses_nothing() {
    let refusal = Arc::new(RefuseAll::default());
    let state = ConnectionState::new(Arc::default(), None, Instant::now(), Holdings::default());
    let early = EarlyAnswers::new(refusal.clone(), Arc::new(state));
    let (told, begun) = oneshot::channel();
    let told = std::cell::Cell::new(Some(told));
    let echo = service_fn(move |request: Request<IncomingBody>| {
        told.take().unwrap().send(()).unwrap();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    let Served { client, .. } = serve_unless(Some(early), echo, false);
    let mut sender = connect(client).await;
    let (call, mut body) = sender.send_request(request("/"), false).unwrap();
    body.send_data(Bytes::from_static(b"one half, "), false).unwrap();
    soon(begun).await.unwrap();
    body.send_data(Bytes::from_static(b"and the other"), true).unwrap();
    let mut answer = call.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "one half, and the other");
    assert_eq!(refusal.0.load(Relaxed), 0);
}

#[tokio::test]
async fn a_panic_costs_its_call_only() {
    let Served { client, .. } = serve(service_fn(answer), false);
    let mut sender = connect(client).await;
    let (waits, _) = sender.send_request(request("/later"), true).unwrap();
    let (panics, _) = sender.send_request(request("/panic"), true).unwrap();
    let (answered, _) = sender.send_request(request("/now"), true).unwrap();
    assert!(panics.await.unwrap_err().is_reset());
    assert_eq!(answered.await.unwrap().headers()[CONTENT_LENGTH], "6");
    assert!(timeout(Duration::from_millis(1), waits).await.is_err(), "it still waits");
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_is_dropped() {
    let (held, dropped) = oneshot::channel::<Infallible>();
    let held = std::cell::Cell::new(Some(held));
    let keep = service_fn(move |_| {
        let held = held.take();
        async move {
            let _held = held;
            pending::<Result<Answer, Infallible>>().await
        }
    });
    let Served { client, .. } = serve(keep, false);
    let mut sender = connect(client).await;
    let (call, mut body) = sender.send_request(request("/later"), false).unwrap();
    body.send_reset(Reason::CANCEL);
    drop(call);
    soon(dropped).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up() {
    let Served { mut client, task, .. } = serve(service_fn(answer), false);
    // The preface and empty SETTINGS.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let began = Instant::now();
    let end = task.await.unwrap();
    assert!(matches!(end, Err(ConnectionError::Unresponsive)), "{end:?}");
    // The SETTINGS were seen at the first look.
    assert!(
        (INTERVAL + TIMEOUT..=2 * INTERVAL + 2 * TIMEOUT).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    let mut sent = Vec::new();
    client.read_to_end(&mut sent).await.unwrap();
    assert!(sent.windows(9).any(|frame| frame == b"\0\0\x08\x06\0\0\0\0\0"), "a PING");
    assert!(sent.ends_with(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0"), "GOAWAY(0, NO_ERROR) at the end");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_that_answers_pings_is_kept() {
    let Served { client, mut task, writes } = serve(service_fn(answer), false);
    let mut sender = connect(client).await;
    let before = writes.load(Relaxed);
    assert!(timeout(60 * INTERVAL, &mut task).await.is_err());
    let pings = writes.load(Relaxed) - before;
    assert!((57..=60).contains(&pings), "one an interval: {pings}");
    let (call, _) = sender.send_request(request("/now"), true).unwrap();
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_connection_that_is_to_go_before_its_handshake_goes_after_it() {
    let Served { client, task, .. } = serve(service_fn(answer), true);
    let sender = connect(client).await;
    let end = soon(task).await.unwrap();
    assert!(sender.ready().await.unwrap_err().is_go_away(), "{end:?}");
}

#[tokio::test]
async fn a_request_is_read_to_the_end_of_its_trailers() {
    let describe = service_fn(|request: Request<IncomingBody>| async move {
        let body = request.into_body().collect().await.unwrap();
        let trailer = body.trailers().map(|trailers| trailers["checksum"].clone());
        let said = format!("{trailer:?} {}", body.to_bytes().len());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
    });
    let Served { client, .. } = serve(describe, false);
    let mut sender = connect(client).await;
    let (call, mut body) = sender.send_request(request("/read"), false).unwrap();
    body.send_data(vec![7; 200_000].into(), false).unwrap();
    body.send_trailers([("checksum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
    let mut answer = call.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "Some(\"7\") 200000");
}

#[tokio::test]
async fn a_request_that_was_reset_is_not_whole() {
    // Node's `destroy()` resets a request that it gives up with NO_ERROR.
    for reason in [Reason::NO_ERROR, Reason::CANCEL] {
        let (told, mut frames) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<IncomingBody>| {
            let told = told.clone();
            async move {
                let mut body = request.into_body();
                loop {
                    let frame = body.frame().await.map(|frame| frame.is_ok());
                    told.send(frame).unwrap();
                    if frame != Some(true) {
                        return pending::<Result<Answer, Infallible>>().await;
                    }
                }
            }
        });
        let Served { client, task: _task, .. } = serve(service, false);
        let mut sender = connect(client).await;
        let (_answer, mut stream) = sender.send_request(request("/"), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(frames.recv().await, Some(Some(true)), "{reason:?}");
        stream.send_reset(reason);
        assert_eq!(frames.recv().await, Some(Some(false)), "{reason:?}");
    }
}
