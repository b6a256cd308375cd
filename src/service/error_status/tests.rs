use std::time::Duration;

use http::HeaderMap;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::{
    rpc::status::{
        add_error_details, bad_content_type, bad_timeout, draining, message_too_large, overloaded, starting,
        unimplemented,
    },
    service::testing::{bad_fields, details},
};

#[test]
fn whoever_is_turned_away_is_told_when_to_come_back() {
    for (status, reason, millis) in [
        (overloaded(), "OVERLOADED", 500),
        (draining(), "DRAINING", 0),
        (starting(), "STARTING", 1_000),
        (from_error(Error::Unavailable("no room")), "STORE_UNAVAILABLE", 1_000),
        (safe_to_repeat(), "OUTCOME_UNKNOWN", 1_000),
    ] {
        let details = details(&status, Code::Unavailable, reason);
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(millis)));
        let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback.to_str().unwrap(), millis.to_string());
    }
    let refused = from_error(Error::Overloaded { retry_delay: Duration::from_millis(20) });
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "20");
}

#[test]
fn what_cannot_be_retried_says_nothing_of_retrying() {
    for (status, code, reason) in [
        (message_too_large(7), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (deadline_exceeded(), Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (internal(), Code::Internal, "INTERNAL"),
        (unimplemented(), Code::Unimplemented, "UNKNOWN_METHOD"),
        (from_error(Error::OutcomeUnknown), Code::Unknown, "OUTCOME_UNKNOWN"),
        (from_error(Error::RefusedByStore("rule".into())), Code::FailedPrecondition, "REFUSED_BY_STORE"),
    ] {
        assert!(details(&status, code, reason).retry_info().is_none());
        assert!(!status.metadata().contains_key("grpc-retry-pushback-ms"));
    }
}

#[test]
fn an_invalid_argument_names_what_is_invalid() {
    for (status, reason, field) in [
        (bad_timeout(), "INVALID_TIMEOUT", "grpc-timeout"),
        (bad_content_type(), "INVALID_CONTENT_TYPE", "content-type"),
        (from_error(Error::RequestIdReused), "REQUEST_ID_REUSED", "request_id"),
    ] {
        let details = details(&status, Code::InvalidArgument, reason);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    let violation = |field: &str| Violation { field: field.into(), description: "must be good".into() };
    let listed = vec![violation("a"), violation("b")];
    let all = from_error(Error::Invalid { listed: listed.clone(), total: 2 });
    assert_eq!(bad_fields(&all), ["a", "b"]);
    assert_eq!(all.message(), "the request is invalid: a must be good; b must be good");
    assert!(all.get_error_details().error_info().unwrap().metadata.is_empty());

    let some = from_error(Error::Invalid { listed, total: 1_000 });
    assert_eq!(bad_fields(&some), ["a", "b"]);
    assert_eq!(some.message(), "the request is invalid: a must be good; b must be good; and 998 more");
    assert_eq!(some.get_error_details().error_info().unwrap().metadata["omitted_violations"], "998");
}

#[test]
fn an_error_without_details_gets_them_and_keeps_the_rest() {
    let mut headers = HeaderMap::new();
    Status::unimplemented("no zstd here").add_header(&mut headers).unwrap();
    headers.insert("grpc-accept-encoding", "gzip".parse().unwrap());
    add_error_details(&mut headers, 7);
    let status = Status::from_header_map(&headers).unwrap();
    details(&status, Code::Unimplemented, "UNKNOWN_ENCODING");
    assert_eq!(headers["grpc-accept-encoding"], "identity,gzip");
}

#[test]
fn what_is_complete_or_no_error_is_left_alone() {
    let mut full = HeaderMap::new();
    draining().add_header(&mut full).unwrap();
    let mut good = HeaderMap::new();
    good.insert("grpc-status", "0".parse().unwrap());
    for before in [full, good, HeaderMap::new()] {
        let mut after = before.clone();
        add_error_details(&mut after, 7);
        assert_eq!(after, before);
    }
}
