//! Watches each call from its first byte to its last: what is counted, logged
//! and traced of it is made here, once, when its status is known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Code;
use tower_service::Service;
use tracing::span::Entered;

use super::{call_log::CallLog, code, messages::Messages, metrics::Metrics, trace::Trace};
use crate::{
    service::methods::{Matched, Method},
    telemetry::Sampler,
};

/// Where calls are recorded, shared by every connection and thread.
#[derive(Debug)]
pub struct Recorders {
    pub metrics: Arc<Metrics>,
    /// `None`: calls are not logged.
    pub log: Option<CallLog>,
    /// `None`: there are no spans.
    pub sampler: Option<Sampler>,
}

/// Records every call to the inner service.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    recorders: Arc<Recorders>,
}

impl<S> Observe<S> {
    pub fn new(inner: S, recorders: Arc<Recorders>) -> Self {
        Self { inner, recorders }
    }
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call::start(&request, self.recorders.clone());
        let entered = call.enter();
        let inner = self.inner.call(request);
        drop(entered);
        ObserveFuture { inner, call: Some(call) }
    }
}

/// One call, which has not ended. Dropped before its end it was cancelled.
#[derive(Debug)]
struct Call {
    method: Option<&'static Method>,
    started: Instant,
    trace: Trace,
    recorders: Arc<Recorders>,
    ended: Option<Code>,
}

impl Call {
    fn start<B>(request: &Request<B>, recorders: Arc<Recorders>) -> Self {
        let method = request.extensions().get::<Matched>().and_then(|matched| matched.0);
        recorders.metrics.of(method).started();
        let name = method.map_or("_OTHER", Method::full_name);
        let trace = Trace::start(request.headers(), name, recorders.sampler.as_ref());
        Self { method, started: Instant::now(), trace, recorders, ended: None }
    }

    /// Makes the call's span the one that spans of the store are children of.
    fn enter(&self) -> Option<Entered<'_>> {
        self.trace.span.as_ref().map(tracing::Span::enter)
    }

    fn end(mut self, code: Code) {
        self.ended = Some(code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.ended.unwrap_or(Code::Cancelled);
        let took = self.started.elapsed();
        self.recorders.metrics.of(self.method).finished(code, took);
        self.trace.finish(code);
        if let Some(log) = &self.recorders.log {
            log.call(self.method, code, took, self.trace.id);
        }
    }
}

pin_project! {
    /// The future of [`Observe`].
    pub struct ObserveFuture<F> {
        // Before the call, so that what is within is dropped while the call has not ended.
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ObservedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.call.as_ref().and_then(Call::enter);
        let response = ready!(this.inner.poll(cx));
        drop(entered);
        let mut call = this.call.take();
        let response = response.inspect_err(|_| end(&mut call, Code::Unknown))?;
        if let Some(code) = code::in_headers(response.headers()) {
            end(&mut call, code);
        } else if response.status() != StatusCode::OK {
            end(&mut call, code::of_http(response.status()));
        }
        Poll::Ready(Ok(response.map(|inner| ObservedBody { inner, call, messages: Messages::default() })))
    }
}

/// Ends the call unless it has ended.
fn end(call: &mut Option<Call>, code: Code) {
    if let Some(call) = call.take() {
        call.end(code);
    }
}

pin_project! {
    /// The body of an answer, whose trailers end the call.
    pub struct ObservedBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
        messages: Messages,
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let entered = this.call.as_ref().and_then(Call::enter);
        let frame = ready!(this.inner.poll_frame(cx));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(bytes), Some(call)) = (frame.data_ref(), &this.call) {
                    let sent = this.messages.read(bytes, usize::MAX).unwrap_or(0);
                    call.recorders.metrics.of(call.method).sent.increment(sent);
                } else if let Some(trailers) = frame.trailers_ref() {
                    end(this.call, code::in_headers(trailers).unwrap_or(Code::Unknown));
                }
            }
            // A client that gets an answer without a status makes the same of it.
            Some(Err(_)) | None => end(this.call, Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{pending, ready},
    };

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::layers::testing::{Script, Step, UNARY, recorded, request, response};

    const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

    fn observe<S>(inner: S) -> Observe<S> {
        let metrics = Arc::new(Metrics::new());
        Observe::new(inner, Arc::new(Recorders { metrics, log: None, sampler: None }))
    }

    /// The codes of the calls that ended while `f` called a service that answers so.
    fn codes(answer: &'static [Step], f: impl FnOnce(Response<ObservedBody<Script>>)) -> Vec<String> {
        let lines = recorded(|| {
            let service =
                observe(service_fn(|_: Request<Script>| ready(Ok::<_, Infallible>(response(answer)))));
            f(service.oneshot(request(UNARY)).now_or_never().unwrap().unwrap());
        });
        handled(&lines)
    }

    fn handled(lines: &[String]) -> Vec<String> {
        let code = |line: &String| {
            let rest = line.strip_prefix("grpc_server_handled_total")?;
            let (_, code) = rest.split_once("grpc_code=\"")?;
            Some(code.replace("\"}", ""))
        };
        lines.iter().filter_map(code).collect()
    }

    fn read_all(response: Response<ObservedBody<Script>>) {
        let _ = response.into_body().collect().now_or_never();
    }

    #[test]
    fn a_call_ends_once_with_the_code_in_its_trailers() {
        assert_eq!(codes(&[Step::Data(MESSAGE), Step::Trailers("0")], read_all), ["OK 1"]);
        assert_eq!(codes(&[Step::Trailers("5")], read_all), ["NotFound 1"]);
    }

    #[test]
    fn an_answer_without_a_status_is_unknown_as_it_is_to_clients() {
        assert_eq!(codes(&[Step::Data(MESSAGE)], read_all), ["Unknown 1"]);
    }

    #[test]
    fn a_call_that_is_given_up_is_cancelled_once() {
        assert_eq!(codes(&[Step::Data(MESSAGE), Step::Hang], read_all), ["Canceled 1"]);
        assert_eq!(codes(&[Step::Trailers("0")], drop), ["Canceled 1"]);
        let lines = recorded(|| {
            let service =
                observe(service_fn(|_: Request<Script>| pending::<Result<Response<Script>, Infallible>>()));
            assert!(service.oneshot(request(UNARY)).now_or_never().is_none());
        });
        assert_eq!(handled(&lines), ["Canceled 1"]);
    }

    #[test]
    fn a_status_in_the_head_ends_the_call_whatever_becomes_of_the_body() {
        let lines = recorded(|| {
            let service = observe(service_fn(|_: Request<Script>| {
                ready(Ok::<_, Infallible>(tonic::Status::not_found("").into_http::<Script>()))
            }));
            drop(service.oneshot(request(UNARY)).now_or_never().unwrap());
        });
        assert_eq!(handled(&lines), ["NotFound 1"]);
    }

    #[test]
    fn an_ok_is_counted_under_both_families_of_names() {
        let lines = recorded(|| {
            let service = observe(service_fn(|_: Request<Script>| {
                ready(Ok::<_, Infallible>(response(&[
                    Step::Data(MESSAGE),
                    Step::Data(MESSAGE),
                    Step::Trailers("0"),
                ])))
            }));
            read_all(service.oneshot(request(UNARY)).now_or_never().unwrap().unwrap());
        });
        let labels = "grpc_type=\"unary\",grpc_service=\"user.v1.UserService\",grpc_method=\"GetUser\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 1"),
            format!("grpc_server_msg_sent_total{{{labels}}} 2"),
            format!("grpc_server_handling_seconds_count{{{labels}}} 1"),
            "rpc_server_call_duration_seconds_count{rpc_system_name=\"grpc\",\
             rpc_method=\"user.v1.UserService/GetUser\",rpc_response_status_code=\"OK\"} 1"
                .into(),
        ] {
            assert!(lines.contains(&line), "{line} is missing in\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn made_up_paths_share_one_set_of_series() {
        let lines = recorded(|| {
            let service = observe(service_fn(|_: Request<Script>| {
                ready(Ok::<_, Infallible>(tonic::Status::unimplemented("").into_http::<Script>()))
            }));
            for path in ["/a/B", "/c/D", "/user.v1.UserService/GetUser/"] {
                drop(service.clone().oneshot(request(path)).now_or_never().unwrap());
            }
        });
        assert_eq!(handled(&lines), ["Unimplemented 3"]);
        assert!(lines.iter().all(|line| !line.contains("/a") && !line.contains("\"B\"")), "{lines:?}");
        let latency: Vec<_> = lines.iter().filter(|line| line.starts_with("grpc_server_handling")).collect();
        assert!(latency.is_empty(), "failures are not in the latency: {latency:?}");
    }
}
