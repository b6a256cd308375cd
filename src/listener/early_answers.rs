//! Refusing calls of a connection before anything is made of them.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};

use super::{
    connection_state::ConnectionState,
    incoming_body::{IncomingBody, StreamBody},
};
use crate::rpc::early_refusal::EarlyRefusal;

/// What refuses the calls of a connection.
#[derive(Clone, Debug)]
pub struct EarlyAnswers {
    refusal: Arc<dyn EarlyRefusal>,
    connection: Arc<ConnectionState>,
}

impl EarlyAnswers {
    pub fn new(refusal: Arc<dyn EarlyRefusal>, connection: Arc<ConnectionState>) -> Self {
        Self { refusal, connection }
    }

    /// The answer to a call that is refused; otherwise the call.
    ///
    /// # Errors
    /// The call is not to be refused, or not yet: an answer before the end of a request needs
    /// its rest to be read.
    pub fn answer(&self, mut request: Request<RecvStream>) -> Result<Response<()>, Request<IncomingBody>> {
        let handle = &self.connection.handle;
        let due = self.refusal.due(request.method(), request.uri(), request.headers(), handle);
        // The answers of a connection that is about to go are counted once they are delivered.
        let Some(method) = due.filter(|_| !handle.is_going_away()) else {
            return Err(request.map(|stream| StreamBody::new(stream).into()));
        };
        let frame = first_frame(request.body_mut());
        if !request.body().is_end_stream() {
            return Err(request.map(|stream| StreamBody::begun(frame, stream).into()));
        }
        self.connection.begin_call();
        Ok(self.refusal.refuse(method, request.headers(), handle))
    }

    /// Sends such an answer.
    pub fn send<D: Buf>(&self, mut respond: SendResponse<D>, answer: Response<()>) {
        // The caller may have given up.
        let _ = respond.send_response(answer, true);
        self.connection.end_call(false);
    }
}

/// The first DATA of a request, if it has come.
fn first_frame(stream: &mut RecvStream) -> Option<Bytes> {
    match stream.poll_data(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(bytes))) => {
            // It fails for a stream that has ended, which needs no window.
            let _ = stream.flow_control().release_capacity(bytes.len());
            Some(bytes)
        }
        _ => None,
    }
}
