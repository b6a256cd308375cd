use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tonic::{Code, Status, body::Body, codec::CompressionEncoding::Gzip};
use tower::ServiceExt;

use super::*;
use crate::{
    domain::MAX_PAGE_SIZE,
    feed::Feed,
    proto::user::v1::{
        BatchGetUsersRequest, CreateUserRequest, ListUsersRequest, user_service_client::UserServiceClient,
    },
    rpc::methods::{Api, METHODS, MethodKind},
    service::testing::{bad_fields, details, raw, router, router_with, transport},
};

const LIST: &str = "/user.v1.UserService/ListUsers";

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut body = vec![flag];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    body
}

async fn answer(request: Request<Inbound<Body>>) -> Response<ResponseBody> {
    router().0.oneshot(request).await.unwrap()
}

/// The error in an answer's head.
fn error(response: &Response<ResponseBody>) -> Status {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
    Status::from_header_map(response.headers()).expect("an error")
}

#[tokio::test]
async fn a_method_is_called_by_post() {
    assert_eq!(answer(raw(LIST, framed(0, &[]))).await.status(), StatusCode::OK);
    let mut request = raw(LIST, framed(0, &[]));
    *request.method_mut() = http::Method::GET;
    assert_eq!(answer(request).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_path_that_matched_nothing_is_unimplemented() {
    let mut unmatched = raw("/user.v1.UserService/GetUser", framed(0, &[]));
    unmatched.body_mut().call.method = None;
    for request in [unmatched, raw("/user.v1.UserService/Nothing", framed(0, &[])), raw("/", vec![])] {
        details(&error(&answer(request).await), Code::Unimplemented, "UNKNOWN_METHOD");
    }
}

#[tokio::test]
async fn what_cannot_be_read_has_an_error_with_details() {
    for (body, code, reason) in [
        // No message, half a message, no protobuf, a bad flag, compressed without saying how.
        (vec![], Code::Unimplemented, "MISSING_MESSAGE"),
        (framed(0, &[0; 9])[..7].to_vec(), Code::Internal, "MALFORMED_MESSAGE"),
        (framed(0, &[0xff; 9]), Code::Internal, "MALFORMED_MESSAGE"),
        (framed(7, &[]), Code::Internal, "MALFORMED_MESSAGE"),
        (framed(1, &[]), Code::Internal, "MALFORMED_MESSAGE"),
        ([framed(0, &[]), framed(0, &[])].concat(), Code::Unimplemented, "SEVERAL_MESSAGES"),
    ] {
        details(&error(&answer(raw(LIST, body)).await), code, reason);
    }
    for flag in [0, 1] {
        let mut request = raw(LIST, framed(flag, &[1, 2, 3]));
        request.headers_mut().insert("grpc-encoding", HeaderValue::from_static("zstd"));
        let response = answer(request).await;
        details(&error(&response), Code::Unimplemented, "UNKNOWN_ENCODING");
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_packed_or_not() {
    let limit = Config::default().max_request_bytes;
    let plain = error(&answer(raw(LIST, framed(0, &vec![0; limit + 1]))).await);
    // A gzip bomb: small as sent, large as read.
    let mut client = UserServiceClient::new(transport(router().0)).send_compressed(Gzip);
    let bomb = CreateUserRequest { user_id: "a".repeat(40 * limit), ..Default::default() };
    let packed = client.create_user(bomb).await.unwrap_err();
    for status in [plain, packed] {
        let details = details(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        assert!(details.retry_info().is_none(), "there is nothing to retry");
        assert!(status.message().contains(&limit.to_string()));
    }
}

#[tokio::test]
async fn a_message_may_come_a_byte_at_a_time() {
    let message = ListUsersRequest { page_size: 7, page_token: String::new() }.encode_to_vec();
    let bytes = framed(0, &message).into_iter().map(|byte| Ok::<_, Status>(Frame::data(vec![byte].into())));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(bytes)));
    let response = answer(raw(LIST, Vec::new()).map(|inbound| Inbound { body, ..inbound })).await;
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn compressed_requests_are_read() {
    let mut client = UserServiceClient::new(transport(router().0)).send_compressed(Gzip);
    client.list_users(ListUsersRequest::default()).await.unwrap();
}

#[tokio::test]
async fn as_many_ids_as_fit_a_message_cost_one_violation() {
    let limit = Config::default().max_request_bytes;
    let mut client = UserServiceClient::new(transport(router().0));
    // Two bytes for each empty id; decoded they are 12 times as much, and gone before anything is awaited.
    let request = BatchGetUsersRequest { ids: vec![String::new(); limit / 2], allow_missing: false };
    assert!(request.ids.len() > MAX_PAGE_SIZE && request.encoded_len() <= limit);
    assert_eq!(bad_fields(&client.batch_get_users(request).await.unwrap_err()), ["ids"]);
}

#[tokio::test]
async fn calls_wait_for_the_store_and_health_does_not() {
    let config = Config::default();
    let (slot, health) = (StoreSlot::default(), Health::new(&Config::default()));
    let router = Router::new(&config, &slot, &health);
    let mut client = UserServiceClient::new(transport(router.clone()));
    let status = client.list_users(ListUsersRequest::default()).await.unwrap_err();
    details(&status, Code::Unavailable, "STARTING");
    let checked = router.clone().oneshot(raw("/grpc.health.v1.Health/Check", framed(0, &[]))).await.unwrap();
    assert!(!checked.headers().contains_key("grpc-status"), "an answer, not an error");

    let (_, store) = router_with(&config);
    slot.open(store.clone(), Feed::new(store, 1));
    client.list_users(ListUsersRequest::default()).await.unwrap();
}

#[test]
fn every_method_of_the_protos_has_its_row_and_each_row_its_index() {
    let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
    let mut declared = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let package = file.package();
            let service_name = if package.is_empty() {
                service.name().into()
            } else {
                format!("{package}.{}", service.name())
            };
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => MethodKind::Unary,
                    (false, true) => MethodKind::ServerStreaming,
                    (true, true) => MethodKind::BidiStreaming,
                    (true, false) => panic!("no kind for {}", method.name()),
                };
                declared.push((format!("/{service_name}/{}", method.name()), kind));
            }
        }
    }
    // tonic-reflection brings the protos of reflection.
    let ours =
        METHODS.iter().filter(|method| !matches!(method.api, Api::ReflectionV1 | Api::ReflectionV1Alpha));
    let mut listed: Vec<_> = ours.map(|method| (method.path.to_owned(), method.kind)).collect();
    declared.sort_by(|a, b| a.0.cmp(&b.0));
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(listed, declared);
    assert!(METHODS.iter().enumerate().all(|(index, method)| method.index() == index));
}

#[tokio::test]
async fn a_method_of_one_message_takes_no_second_one() {
    for method in METHODS.iter().filter(|method| method.kind != MethodKind::BidiStreaming) {
        let twice = [framed(0, &[]), framed(0, &[])].concat();
        let status = error(&answer(raw(method.path, twice)).await);
        details(&status, Code::Unimplemented, "SEVERAL_MESSAGES");
    }
    for method in METHODS.iter().filter(|method| method.kind == MethodKind::ServerStreaming) {
        assert_eq!(error(&answer(raw(method.path, vec![])).await).code(), Code::Unimplemented, "{method:?}");
    }
}
