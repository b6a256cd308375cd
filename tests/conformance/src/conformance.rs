//! `connectrpc.conformance.v1.ConformanceService`: answers what each request asks for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use prost::{Message as _, Name};
use prost_types::Any;
use tokio::{sync::mpsc, time::sleep};
use tonic::{Code, Status, Streaming};

use crate::{
    calls::{self, AnswerBody, Answers, Metadata, Outcome, Request, Seen},
    proto::conformance::{
        BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse, ConformancePayload,
        Error, Header, IdempotentUnaryRequest, IdempotentUnaryResponse, ServerStreamRequest,
        ServerStreamResponse, StreamResponseDefinition, UnaryRequest, UnaryResponse, UnaryResponseDefinition,
        conformance_payload::RequestInfo, unary_response_definition,
    },
};

pub async fn unary(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::unary(request, limit, async |seen, message: UnaryRequest| {
        let requests = vec![any(&message)];
        let (metadata, payload) = one_answer(&seen, message.response_definition, requests).await;
        (metadata, payload.map(|payload| UnaryResponse { payload: Some(payload) }))
    })
    .await
}

pub async fn idempotent_unary(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::unary(request, limit, async |seen, message: IdempotentUnaryRequest| {
        let requests = vec![any(&message)];
        let (metadata, payload) = one_answer(&seen, message.response_definition, requests).await;
        (metadata, payload.map(|payload| IdempotentUnaryResponse { payload: Some(payload) }))
    })
    .await
}

pub async fn client_stream(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::client_streaming(request, limit, async |seen, mut messages: Streaming<ClientStreamRequest>| {
        let (mut definition, mut requests) = (None, Vec::new());
        loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    requests.push(any(&message));
                    if requests.len() == 1 {
                        definition = message.response_definition;
                    }
                }
                Ok(None) => break,
                Err(status) => return (Metadata::default(), Err(status)),
            }
        }
        let (metadata, payload) = one_answer(&seen, definition, requests).await;
        (metadata, payload.map(|payload| ClientStreamResponse { payload: Some(payload) }))
    })
    .await
}

pub async fn server_stream(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::server_streaming(request, limit, async |seen, message: ServerStreamRequest| {
        let requests = vec![any(&message)];
        let definition = message.response_definition.unwrap_or_default();
        let metadata = metadata(&definition.response_headers, &definition.response_trailers);
        let answers = calls::stream(move |send| async move {
            let answers = StreamOfAnswers { seen, definition, sent: 0, send };
            answers.finish(requests, |payload| ServerStreamResponse { payload: Some(payload) }).await;
        });
        (metadata, Ok(answers))
    })
    .await
}

pub async fn bidi_stream(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::bidi_streaming(request, limit, bidi).await
}

async fn bidi(
    seen: Seen,
    mut messages: Streaming<BidiStreamRequest>,
) -> Outcome<Answers<BidiStreamResponse>> {
    let payload = |payload| BidiStreamResponse { payload: Some(payload) };
    let first = match messages.message().await {
        Ok(first) => first,
        Err(status) => return (Metadata::default(), Err(status)),
    };
    let mut requests: Vec<_> = first.iter().map(any).collect();
    let full_duplex = first.as_ref().is_some_and(|first| first.full_duplex);
    let definition = first.and_then(|first| first.response_definition).unwrap_or_default();
    let metadata = metadata(&definition.response_headers, &definition.response_trailers);
    // A half-duplex call has no headers before the last request, because a client of
    // HTTP/1.1 may take an answer as the end of what is read of its request.
    if !full_duplex {
        loop {
            match messages.message().await {
                Ok(Some(message)) => requests.push(any(&message)),
                Ok(None) => break,
                Err(status) => return (metadata, Err(status)),
            }
        }
    }
    let answers = calls::stream(move |send| async move {
        let mut answers = StreamOfAnswers { seen, definition, sent: 0, send };
        while full_duplex && answers.has_more() {
            if !answers.next(std::mem::take(&mut requests), true, payload).await {
                return;
            }
            match messages.message().await {
                Ok(Some(message)) => requests.push(any(&message)),
                Ok(None) => break,
                Err(status) => {
                    let _ = answers.send.send(Err(status)).await;
                    return;
                }
            }
        }
        answers.finish(requests, payload).await;
    });
    (metadata, Ok(answers))
}

/// The answers of a stream, as its first request defines them.
struct StreamOfAnswers<T> {
    seen: Seen,
    definition: StreamResponseDefinition,
    /// How many messages are sent.
    sent: usize,
    send: mpsc::Sender<Result<T, Status>>,
}

impl<T> StreamOfAnswers<T> {
    fn has_more(&self) -> bool {
        self.sent < self.definition.response_data.len()
    }

    /// Sends the next message; false where nobody reads it. The first holds everything that
    /// is known of the call, and a later one only the requests, `interleaved` with answers.
    async fn next(
        &mut self,
        requests: Vec<Any>,
        interleaved: bool,
        message: impl FnOnce(ConformancePayload) -> T,
    ) -> bool {
        sleep(Duration::from_millis(self.definition.response_delay_ms.into())).await;
        let request_info = match self.sent {
            0 => Some(request_info(&self.seen, requests)),
            _ if interleaved => Some(RequestInfo { requests, ..RequestInfo::default() }),
            _ => None,
        };
        let data = self.definition.response_data[self.sent].clone();
        self.sent += 1;
        self.send.send(Ok(message(ConformancePayload { data, request_info }))).await.is_ok()
    }

    /// Sends the messages that are left, and the error.
    async fn finish(mut self, mut requests: Vec<Any>, message: impl Fn(ConformancePayload) -> T) {
        while self.has_more() {
            if !self.next(std::mem::take(&mut requests), false, &message).await {
                return;
            }
        }
        if let Some(error) = self.definition.error.take() {
            let info = (self.sent == 0).then(|| request_info(&self.seen, requests));
            let _ = self.send.send(Err(status(error, info.as_ref()))).await;
        }
    }
}

/// The answer of a call with one.
async fn one_answer(
    seen: &Seen,
    definition: Option<UnaryResponseDefinition>,
    requests: Vec<Any>,
) -> Outcome<ConformancePayload> {
    let definition = definition.unwrap_or_default();
    let metadata = metadata(&definition.response_headers, &definition.response_trailers);
    sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    let info = request_info(seen, requests);
    let data = match definition.response {
        Some(unary_response_definition::Response::Error(error)) => {
            return (metadata, Err(status(error, Some(&info))));
        }
        Some(unary_response_definition::Response::ResponseData(data)) => data,
        None => Vec::new(),
    };
    (metadata, Ok(ConformancePayload { data, request_info: Some(info) }))
}

fn request_info(seen: &Seen, requests: Vec<Any>) -> RequestInfo {
    let names = seen.headers.keys().map(|name| Header {
        name: name.to_string(),
        value: seen
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect(),
    });
    RequestInfo {
        request_headers: names.collect(),
        timeout_ms: seen.timeout().and_then(|timeout| i64::try_from(timeout.as_millis()).ok()),
        requests,
        connect_get_info: None,
    }
}

fn status(error: Error, info: Option<&RequestInfo>) -> Status {
    let mut details = error.details;
    details.extend(info.map(any));
    let message = error.message.unwrap_or_default();
    let status = tonic_types::Status { code: error.code, message, details };
    Status::with_details(Code::from_i32(status.code), status.message.clone(), status.encode_to_vec().into())
}

fn metadata(headers: &[Header], trailers: &[Header]) -> Metadata {
    Metadata { headers: header_map(headers), trailers: header_map(trailers) }
}

/// Names and values that HTTP allows; a test defines no others.
fn header_map(headers: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers {
        let Ok(name) = HeaderName::try_from(&header.name) else { continue };
        for value in &header.value {
            if let Ok(value) = HeaderValue::try_from(value) {
                map.append(&name, value);
            }
        }
    }
    map
}

fn any<M: Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}
