use std::{
    convert::Infallible,
    future::{pending, ready},
    sync::Arc,
};

use futures_util::FutureExt;
use tonic::Code;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::layers::testing::{STREAM, Script, Step, UNARY, end, head, request, response};

fn with_timeout(path: &str, timeout: &'static str) -> Request<Inbound<Script>> {
    let mut request = request(path);
    if !timeout.is_empty() {
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
    }
    request
}

fn config(default: Duration, max: Duration) -> Config {
    Config { default_timeout: default, max_timeout: max, ..Config::default() }
}

#[test]
fn a_timeout_is_one_to_eight_digits_and_a_unit() {
    let parsed = |text: &str| parse(&HeaderValue::from_str(text).unwrap());
    assert_eq!(parsed("1H"), Ok(Duration::from_hours(1)));
    assert_eq!(parsed("2M"), Ok(Duration::from_mins(2)));
    assert_eq!(parsed("3S"), Ok(Duration::from_secs(3)));
    assert_eq!(parsed("4m"), Ok(Duration::from_millis(4)));
    assert_eq!(parsed("5u"), Ok(Duration::from_micros(5)));
    assert_eq!(parsed("00000006n"), Ok(Duration::from_nanos(6)));
    assert_eq!(parsed("99999999H"), Ok(Duration::from_hours(99_999_999)));
    for malformed in ["", "S", "1", "1s", "123456789S", "-1S", "+1S", "1.5S", "1 S", " 1S", "1SS", "0x1S"] {
        assert_eq!(parsed(malformed), Err(Malformed), "{malformed:?}");
    }
}

#[test]
fn a_malformed_timeout_is_the_callers_mistake() {
    let service = Deadlines::new(
        service_fn(|_: Request<Inbound<Script>>| ready(Ok::<_, Infallible>(response(&[])))),
        &Config::default(),
    );
    let response = service.oneshot(with_timeout(UNARY, "soon")).now_or_never().unwrap().unwrap();
    assert_eq!(head(&response).unwrap().code(), Code::InvalidArgument);
}

/// The time that the service is told it has, in whole seconds, rounded up.
fn told(path: &str, timeout: &'static str, default: u64, max: u64) -> Option<u64> {
    let config = config(Duration::from_secs(default), Duration::from_secs(max));
    let (tell, told) = std::sync::mpsc::channel();
    let service = service_fn(move |request: Request<Inbound<Script>>| {
        let deadline = request.body().call.deadline.remaining();
        tell.send(deadline).unwrap();
        ready(Ok::<_, Infallible>(response(&[])))
    });
    let service = Deadlines::new(service, &config);
    service.oneshot(with_timeout(path, timeout)).now_or_never().unwrap().unwrap();
    told.recv().unwrap().map(|left| left.as_secs() + 1)
}

#[test]
fn the_servers_default_and_maximum_are_for_unary_calls_only() {
    assert_eq!(told(UNARY, "", 100, 300), Some(100));
    assert_eq!(told(UNARY, "200S", 100, 300), Some(200));
    assert_eq!(told(UNARY, "400S", 100, 300), Some(300));
    assert_eq!(told(STREAM, "", 100, 300), None);
    assert_eq!(told(STREAM, "400S", 100, 300), Some(400));
}

#[test]
fn a_call_whose_time_is_up_when_it_comes_is_not_begun() {
    let service = service_fn(|_: Request<Inbound<Script>>| {
        panic!("it was begun");
        #[allow(unreachable_code, reason = "names the type")]
        pending::<Result<Response<Script>, Infallible>>()
    });
    let service = Deadlines::new(service, &Config::default());
    let response = service.oneshot(with_timeout(UNARY, "0S")).now_or_never().unwrap().unwrap();
    assert_eq!(head(&response).unwrap().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_late_answer_is_not_waited_for_and_its_work_is_dropped() {
    let work = Arc::new(());
    let held = work.clone();
    let service = service_fn(move |_: Request<Inbound<Script>>| {
        let held = held.clone();
        async move {
            pending::<()>().await;
            drop(held);
            Ok::<_, Infallible>(response(&[]))
        }
    });
    let mut call = Box::pin(
        Deadlines::new(service, &config(Duration::from_millis(1), Duration::from_secs(1)))
            .oneshot(request(UNARY)),
    );
    let response = call.as_mut().await.unwrap();
    assert_eq!(head(&response).unwrap().code(), Code::DeadlineExceeded);
    drop(call);
    assert_eq!(Arc::strong_count(&work), 1, "nobody works on it any more");
}

#[tokio::test]
async fn an_answer_that_is_late_in_its_midst_ends_with_the_status() {
    let service = service_fn(|_: Request<Inbound<Script>>| {
        ready(Ok::<_, Infallible>(response(&[Step::Data(b"some"), Step::Hang])))
    });
    let service = Deadlines::new(service, &Config::default());
    let response = service.oneshot(with_timeout(STREAM, "1m")).await.unwrap();
    assert!(head(&response).is_none(), "the head was in time");
    assert_eq!(end(Box::pin(response.into_body())).await, Code::DeadlineExceeded);
}
