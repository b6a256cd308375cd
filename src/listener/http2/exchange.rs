//! One call of HTTP/2: its service's answer, and the answer's way to h2.

use std::{
    convert::Infallible,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderValue, Response, header::CONTENT_LENGTH};
use http_body::Body;
use pin_project_lite::pin_project;

use super::super::http_connection::BoxError;

pin_project! {
    /// A call and its stream. Dropped before its end, it resets the stream.
    pub struct Exchange<F, B: Body> {
        respond: SendResponse<B::Data>,
        // Whether the answer is a head alone, whatever body it would have (RFC 9110, section 9.3.2).
        is_head: bool,
        #[pin]
        stage: Stage<F, B>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, B: Body> {
        Serving {
            #[pin]
            future: F,
        },
        Answering {
            #[pin]
            body: B,
            stream: SendStream<B::Data>,
            // A part of the answer for which the peer has no room yet, and whether it is the last.
            waiting: Option<(B::Data, bool)>,
        },
    }
}

impl<F, B> Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub fn new(future: F, respond: SendResponse<B::Data>, is_head: bool) -> Self {
        Self { respond, is_head, stage: Stage::Serving { future } }
    }

    /// Answers the call where it does not have to wait. Otherwise it gets a task.
    pub fn run(mut self: Pin<Box<Self>>, cx: &mut Context<'_>) {
        // A panic costs this call and not its connection, as it would in a task.
        let polled = catch_unwind(AssertUnwindSafe(|| self.as_mut().poll(cx)));
        if matches!(polled, Ok(Poll::Pending)) {
            drop(tokio::spawn(self));
        }
    }
}

impl<F, B> Future for Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data: Default, Error: Into<BoxError>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let ended = loop {
            let next = match this.stage.as_mut().project() {
                StageProjection::Serving { future } => match future.poll(cx) {
                    Poll::Ready(Ok(answer)) => match begin(this.respond, answer, *this.is_head) {
                        Ok(Some(answering)) => answering,
                        ended => break ended.map(drop),
                    },
                    // The caller may have given up.
                    Poll::Pending => break ready!(this.respond.poll_reset(cx)).map(drop),
                },
                StageProjection::Answering { body, stream, waiting } => {
                    break ready!(send(body, stream, waiting, cx));
                }
            };
            this.stage.set(next);
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a stream failed");
        }
        Poll::Ready(())
    }
}

/// Sends the head of an answer. `None` where it is all of it.
fn begin<F, B: Body<Data: Default>>(
    respond: &mut SendResponse<B::Data>,
    answer: Response<B>,
    is_head: bool,
) -> Result<Option<Stage<F, B>>, h2::Error> {
    let (mut head, body) = answer.into_parts();
    let is_whole = is_head || body.is_end_stream();
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let sent = respond.send_response(Response::from_parts(head, ()), is_whole);
    let stream = sent.inspect_err(|_| respond.send_reset(Reason::INTERNAL_ERROR))?;
    Ok((!is_whole).then_some(Stage::Answering { body, stream, waiting: None }))
}

/// Sends what the peer has room for, in the order of the body.
fn send<B: Body<Data: Default, Error: Into<BoxError>>>(
    mut body: Pin<&mut B>,
    stream: &mut SendStream<B::Data>,
    waiting: &mut Option<(B::Data, bool)>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    loop {
        if let Some((data, _)) = waiting {
            // DATA without bytes needs no room.
            while data.has_remaining() && stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(capacity)) => drop(capacity?),
                    // The peer has reset the stream.
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return stream.poll_reset(cx).map_ok(drop),
                }
            }
            if let Some((data, is_last)) = waiting.take() {
                stream.send_data(data, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
            return stream.poll_reset(cx).map_ok(drop);
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    // A window of the peer's is asked for only once there is something for it.
                    // Until then another stream of the connection may have it.
                    if data.has_remaining() {
                        stream.reserve_capacity(1);
                    }
                    *waiting = Some((data, body.is_end_stream()));
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(stream.send_trailers(trailers));
                    }
                }
            },
            Some(Err(error)) => {
                stream.send_reset(reason(&*error.into()));
                return Poll::Ready(Ok(()));
            }
            None => return Poll::Ready(stream.send_data(B::Data::default(), true)),
        }
    }
}

/// What a stream is reset with for an error of its answer.
fn reason(error: &(dyn Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
