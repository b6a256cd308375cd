//! `grpc.testing.TestService`, as gRPC's description of its interop cases has it.

use std::time::Duration;

use http::Response;
use tokio::{sync::mpsc, time::sleep};
use tonic::{Code, Status, Streaming};

use crate::{
    calls::{self, AnswerBody, Metadata, Request, Seen},
    proto::testing::{
        EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
        StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
        StreamingOutputCallResponse,
    },
};

/// What a call with these headers gets back, in its headers and in its trailers.
const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

pub async fn empty_call(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::unary(request, limit, async |seen, _: Empty| (echo(&seen), Ok(Empty {}))).await
}

pub async fn unary_call(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::unary(request, limit, async |seen, message: SimpleRequest| (echo(&seen), simple(message))).await
}

fn simple(message: SimpleRequest) -> Result<SimpleResponse, Status> {
    refusal(message.response_status)?;
    let payload = payload(message.response_type, message.response_size)?;
    // One process is one server.
    let server_id = if message.fill_server_id { std::process::id().to_string() } else { String::new() };
    Ok(SimpleResponse { payload: Some(payload), server_id, ..SimpleResponse::default() })
}

pub async fn streaming_output_call(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::server_streaming(request, limit, async |seen, message: StreamingOutputCallRequest| {
        let answers = calls::stream(move |send| async move {
            if let Err(status) = payloads(&send, message).await {
                let _ = send.send(Err(status)).await;
            }
        });
        (echo(&seen), Ok(answers))
    })
    .await
}

pub async fn streaming_input_call(request: Request, limit: usize) -> Response<AnswerBody> {
    calls::client_streaming(request, limit, async |seen, messages: Streaming<StreamingInputCallRequest>| {
        (echo(&seen), aggregated(messages).await)
    })
    .await
}

async fn aggregated(
    mut messages: Streaming<StreamingInputCallRequest>,
) -> Result<StreamingInputCallResponse, Status> {
    let mut bytes = 0;
    while let Some(message) = messages.message().await? {
        bytes += message.payload.map_or(0, |payload| payload.body.len());
    }
    let size = i32::try_from(bytes).map_err(|_| Status::out_of_range("the payloads have over 2 GiB"))?;
    Ok(StreamingInputCallResponse { aggregated_payload_size: size })
}

pub async fn full_duplex_call(request: Request, limit: usize) -> Response<AnswerBody> {
    duplex(request, limit, async |send, mut messages| {
        while let Some(message) = messages.message().await? {
            payloads(&send, message).await?;
        }
        Ok(())
    })
    .await
}

pub async fn half_duplex_call(request: Request, limit: usize) -> Response<AnswerBody> {
    duplex(request, limit, async |send, mut messages| {
        let mut received = Vec::new();
        while let Some(message) = messages.message().await? {
            received.push(message);
        }
        for message in received {
            payloads(&send, message).await?;
        }
        Ok(())
    })
    .await
}

type Answer = Result<StreamingOutputCallResponse, Status>;

async fn duplex<F>(
    request: Request,
    limit: usize,
    serve: impl FnOnce(mpsc::Sender<Answer>, Streaming<StreamingOutputCallRequest>) -> F + Send,
) -> Response<AnswerBody>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    calls::bidi_streaming(request, limit, async |seen, messages| {
        let answers = calls::stream(move |send| {
            let served = serve(send.clone(), messages);
            async move {
                if let Err(status) = served.await {
                    let _ = send.send(Err(status)).await;
                }
            }
        });
        (echo(&seen), Ok(answers))
    })
    .await
}

/// Sends the payloads that a request asks for.
async fn payloads(send: &mpsc::Sender<Answer>, message: StreamingOutputCallRequest) -> Result<(), Status> {
    refusal(message.response_status)?;
    for ResponseParameters { size, interval_us, .. } in message.response_parameters {
        sleep(Duration::from_micros(interval_us.try_into().unwrap_or(0))).await;
        let payload = Some(payload(message.response_type, size)?);
        let answer = StreamingOutputCallResponse { payload, ..StreamingOutputCallResponse::default() };
        send.send(Ok(answer)).await.map_err(|_| Status::cancelled("the caller is gone"))?;
    }
    Ok(())
}

/// The error that a request asks for.
fn refusal(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => Err(Status::new(Code::from_i32(code), message)),
        _ => Ok(()),
    }
}

fn payload(kind: i32, size: i32) -> Result<Payload, Status> {
    let size =
        usize::try_from(size).map_err(|_| Status::invalid_argument("the size of a payload is negative"))?;
    Ok(Payload { r#type: kind, body: vec![0; size] })
}

fn echo(seen: &Seen) -> Metadata {
    let mut metadata = Metadata::default();
    if let Some(value) = seen.headers.get(ECHO_INITIAL) {
        metadata.headers.insert(ECHO_INITIAL, value.clone());
    }
    if let Some(value) = seen.headers.get(ECHO_TRAILING) {
        metadata.trailers.insert(ECHO_TRAILING, value.clone());
    }
    metadata
}
