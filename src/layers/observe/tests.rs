use std::{
    convert::Infallible,
    future::{pending, ready},
};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    layers::testing::{Script, Step, UNARY, request, response},
    telemetry::testing::recorded,
};

const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

fn observe<S>(inner: S) -> Observe<S> {
    let metrics = Arc::new(CallMetrics::new(crate::config::MetricNames::Both));
    let traces = TraceConfig { sampler: None, follows_callers: true };
    Observe::new(
        inner,
        Arc::new(Recorders { metrics, log: None, traces, in_flight: InFlight::default(), audit: false }),
    )
}

/// The codes of the calls that ended while `f` called a service that answers so.
fn codes(answer: &'static [Step], f: impl FnOnce(Response<ObservedBody<Script>>)) -> Vec<String> {
    let lines = recorded(|| {
        let service =
            observe(service_fn(|_: Request<Inbound<Script>>| ready(Ok::<_, Infallible>(response(answer)))));
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
        let service = observe(service_fn(|_: Request<Inbound<Script>>| {
            pending::<Result<Response<Script>, Infallible>>()
        }));
        assert!(service.oneshot(request(UNARY)).now_or_never().is_none());
    });
    assert_eq!(handled(&lines), ["Canceled 1"]);
}

#[test]
fn a_status_in_the_head_ends_the_call_whatever_becomes_of_the_body() {
    let lines = recorded(|| {
        let service = observe(service_fn(|_: Request<Inbound<Script>>| {
            ready(Ok::<_, Infallible>(tonic::Status::not_found("").into_http::<Script>()))
        }));
        drop(service.oneshot(request(UNARY)).now_or_never().unwrap());
    });
    assert_eq!(handled(&lines), ["NotFound 1"]);
}

#[test]
fn an_ok_is_counted_under_both_families_of_names() {
    let lines = recorded(|| {
        let service = observe(service_fn(|_: Request<Inbound<Script>>| {
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
        let service = observe(service_fn(|_: Request<Inbound<Script>>| {
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
