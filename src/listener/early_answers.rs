//! Refusing calls of a connection before anything is made of them.

use std::sync::Arc;

use bytes::Buf;
use h2::server::SendResponse;
use http::{Request, Response};

use super::{connection_state::ConnectionState, incoming_body::IncomingBody};
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

    /// The answer to a call, if it is to be refused and its request has arrived whole. An
    /// answer before the end of a request needs the rest of it to be read.
    pub fn answer(&self, request: &mut Request<IncomingBody>) -> Option<Response<()>> {
        let handle = &self.connection.handle;
        let method = self.refusal.due(request.method(), request.uri(), request.headers(), handle)?;
        // The answers of a connection that is about to go are counted once they are delivered.
        if handle.is_going_away() || !request.body_mut().has_arrived() {
            return None;
        }
        self.connection.begin_call();
        Some(self.refusal.refuse(method, request.headers(), handle))
    }

    /// Sends such an answer.
    pub fn send<D: Buf>(&self, mut respond: SendResponse<D>, answer: Response<()>) {
        // The caller may have given up.
        let _ = respond.send_response(answer, true);
        self.connection.end_call(false);
    }
}
