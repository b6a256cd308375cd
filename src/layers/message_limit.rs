//! Refuses a message that is too large by its length alone, before any of it is
//! kept: a few MiB on the wire can decode to a GiB. And ends a request of one message
//! that does not arrive in time.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tower_service::Service;

use super::metrics::CallMetrics;
use crate::rpc::{
    call::Inbound,
    framing::{MessageScanner, TooLarge},
    methods::{Method, MethodKind},
    status,
};

/// Reads the lengths of the messages that are received, and counts them.
#[derive(Clone, Debug)]
pub struct MessageLimit<S> {
    inner: S,
    limit: usize,
    metrics: Arc<CallMetrics>,
}

impl<S> MessageLimit<S> {
    pub fn new(inner: S, limit: usize, metrics: Arc<CallMetrics>) -> Self {
        Self { inner, limit, metrics }
    }
}

impl<S, B> Service<Request<Inbound<B>>> for MessageLimit<S>
where
    S: Service<Request<Inbound<LimitedBody<B>>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Inbound<B>>) -> S::Future {
        let (limit, metrics) = (self.limit, self.metrics.clone());
        self.inner.call(request.map(|Inbound { call, body }| {
            let (method, scanner) = (call.method, MessageScanner::default());
            let body = LimitedBody { inner: body, scanner, limit, metrics, method, lost: false, alarm: None };
            Inbound { call, body }
        }))
    }
}

pin_project! {
    /// A request's body that fails with a status where a message is too large.
    pub struct LimitedBody<B> {
        #[pin]
        inner: B,
        scanner: MessageScanner,
        limit: usize,
        metrics: Arc<CallMetrics>,
        method: Option<&'static Method>,
        lost: bool,
        // Set once there is something to wait for, which there is not as a rule.
        alarm: Option<Pin<Box<Sleep>>>,
    }
}

/// How long a request of one message may take to arrive. Requests of many take as long
/// as their callers like.
fn arrives_within(method: Option<&Method>, limit: usize) -> Option<Duration> {
    const LEAST: Duration = Duration::from_secs(10);
    const BYTES_A_SECOND: usize = 64 * 1_024;
    let many = method.is_none_or(|method| method.kind == MethodKind::BidiStreaming);
    let seconds = u64::try_from(limit / BYTES_A_SECOND).unwrap_or(u64::MAX);
    (!many).then(|| LEAST.saturating_add(Duration::from_secs(seconds)))
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    type Data = Bytes;
    /// Boxed, as what reads a request finds a `tonic::Status` in a box only.
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        if *this.lost {
            return Poll::Pending;
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let (method, limit) = (*this.method, *this.limit);
            if this.alarm.is_none() {
                let Some(within) = arrives_within(method, limit) else { return Poll::Pending };
                *this.alarm = Some(Box::pin(sleep(within)));
            }
            let Some(alarm) = this.alarm else { return Poll::Pending };
            ready!(alarm.as_mut().poll(cx));
            return Poll::Ready(Some(Err(status::request_incomplete().into())));
        };
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let error = error.into();
                // The edge refuses a request that it cannot translate.
                if error.is::<Status>() {
                    return Poll::Ready(Some(Err(error)));
                }
                // The caller has reset the stream or is gone. An answer reaches no peer, and would
                // be recorded as this side's fault: the connection drops the call, which is then cancelled.
                *this.lost = true;
                return Poll::Pending;
            }
        };
        if let Some(bytes) = frame.data_ref() {
            let metrics = this.metrics.of(*this.method);
            if let Err(TooLarge) = this.scanner.read(bytes, *this.limit, |len| metrics.received(len)) {
                return Poll::Ready(Some(Err(status::message_too_large(*this.limit).into())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tonic::{Code, Streaming};
    use tonic_prost::ProstDecoder;
    use tonic_types::StatusExt;

    use super::*;
    use crate::{
        config::MetricNames,
        layers::testing::{Script, Step},
        proto::user::v1::GetUserRequest,
        telemetry::testing::recorded,
    };

    /// A whole message: a user's id of one byte.
    const SMALL: &[u8] = &[0, 0, 0, 0, 3, 0x0a, 1, b'x'];
    /// The prefix of a message of 64 bytes.
    const LARGE: &[u8] = &[0, 0, 0, 0, 64];

    fn limited(limit: usize, steps: &[Step]) -> LimitedBody<Script> {
        let (scanner, metrics) = (MessageScanner::default(), Arc::new(CallMetrics::new(MetricNames::Both)));
        LimitedBody {
            inner: Script::new(steps),
            scanner,
            limit,
            metrics,
            method: None,
            lost: false,
            alarm: None,
        }
    }

    #[tokio::test]
    async fn the_status_of_a_large_message_reaches_the_handler_through_tonics_decoder() {
        let body =
            limited(63, &[Step::Data(SMALL), Step::Data(&LARGE[..2]), Step::Data(&LARGE[2..]), Step::Hang]);
        let decoder = ProstDecoder::<GetUserRequest>::new(tonic::codec::BufferSettings::default());
        let mut scanner = Streaming::new_request(decoder, body, None, Some(63));
        assert!(scanner.message().await.unwrap().is_some(), "the small one is whole");
        let status: Status = scanner.message().await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "MESSAGE_TOO_LARGE");
    }

    #[tokio::test]
    async fn a_message_of_just_the_limit_passes() {
        let mut body = limited(64, &[Step::Data(LARGE), Step::Hang]);
        assert!(body.frame().await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_one_message_has_to_arrive_in_time() {
        let (unary, stream) = ("/user.v1.UserService/GetUser", "/user.v1.UserService/ImportUsers");
        let mut late = limited(64 * 1_024, &[Step::Data(&SMALL[..3]), Step::Hang]);
        late.method = crate::rpc::methods::find(unary);
        assert!(late.frame().await.unwrap().is_ok());
        let begun = tokio::time::Instant::now();
        let error = late.frame().await.unwrap().unwrap_err();
        assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), 11);
        let mut patient = limited(64, &[Step::Hang]);
        patient.method = crate::rpc::methods::find(stream);
        let day = tokio::time::timeout(Duration::from_hours(24), patient.frame());
        assert!(day.await.is_err(), "a stream takes its time");
    }

    #[test]
    fn whole_messages_are_counted() {
        let lines = recorded(|| {
            let mut body = limited(64, &[Step::Data(SMALL), Step::Data(SMALL), Step::Data(LARGE)]);
            for _ in 0..3 {
                futures_util::FutureExt::now_or_never(body.frame()).unwrap().unwrap().unwrap();
            }
        });
        let unknown = "{grpc_type=\"unary\",grpc_service=\"unknown\",grpc_method=\"unknown\"}";
        for line in ["msg_received_total", "msg_received_bytes_count"]
            .map(|name| format!("grpc_server_{name}{unknown} 2"))
        {
            assert!(lines.contains(&line), "{line} in {lines:?}");
        }
    }
}
