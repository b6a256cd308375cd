//! A connection of HTTP/2, over h2.
//!
//! hyper's server is not used: a task of tokio's for each call, and what it does besides, take
//! a tenth of a call's instructions. Here the calls that come in one read are begun together and
//! answered together where they need not wait, so that their answers leave in one write.
//!
//! **Invariant:** h2 is polled after each call that was answered here, and last with the waker
//! of the connection's task. So nothing that it has to write stays behind.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Buf;
use h2::{
    Reason,
    server::{Builder, Connection, Handshake, SendResponse},
};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite};

use self::{exchange::Exchange, keepalive::Keepalive};
use super::{
    early_answers::EarlyAnswers,
    http_connection::{BoxError, ConnectionError, HttpConnection, Turn},
    incoming_body::{IncomingBody, StreamBody},
    policing::Observed,
};

mod exchange;
mod keepalive;

/// How to speak HTTP/2.
#[derive(Clone, Debug)]
pub struct Http2 {
    pub h2: Builder,
    /// How long a silent peer is left alone; zero: for ever.
    pub keepalive_interval: Duration,
    /// How long it may take to answer a PING.
    pub keepalive_timeout: Duration,
}

impl Http2 {
    /// Serves a connection from its preface on. `early` may answer calls for `service`.
    pub fn serve<T, S, B>(
        &self,
        io: T,
        service: S,
        early: Option<EarlyAnswers>,
    ) -> Http2Connection<T, S, B::Data>
    where
        T: AsyncRead + AsyncWrite + Unpin,
        S: Service<Request<IncomingBody>, Response = Response<B>>,
        B: Body,
    {
        let stage = Stage::Handshake {
            handshake: self.h2.handshake(io),
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            is_to_go: false,
        };
        Http2Connection { service, early, stage }
    }
}

/// A connection of HTTP/2.
pub struct Http2Connection<T, S, D: Buf> {
    service: S,
    early: Option<EarlyAnswers>,
    stage: Stage<T, D>,
}

/// Nothing of it is pinned.
impl<T, S, D: Buf> Unpin for Http2Connection<T, S, D> {}

enum Stage<T, D: Buf> {
    Handshake {
        handshake: Handshake<T, D>,
        keepalive_interval: Duration,
        keepalive_timeout: Duration,
        is_to_go: bool,
    },
    Calls {
        connection: Connection<T, D>,
        keepalive: Option<Box<Keepalive>>,
    },
}

impl<T, S, B> HttpConnection for Http2Connection<T, S, B::Data>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    const IS_CLOSED_WHEN_IDLE: bool = false;

    fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        observed: &Observed,
        _is_answered: impl Fn() -> bool,
    ) -> Poll<Turn> {
        self.get_mut().poll(cx, observed).map(Turn::Over)
    }

    fn go_away(self: Pin<&mut Self>, _is_idle: bool) {
        match &mut self.get_mut().stage {
            Stage::Handshake { is_to_go, .. } => *is_to_go = true,
            Stage::Calls { connection, .. } => connection.graceful_shutdown(),
        }
    }
}

impl<T, S, B> Http2Connection<T, S, B::Data>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>, observed: &Observed) -> Poll<Result<(), ConnectionError>> {
        let (connection, keepalive) = match &mut self.stage {
            Stage::Calls { connection, keepalive } => (connection, keepalive),
            Stage::Handshake { handshake, keepalive_interval, keepalive_timeout, is_to_go } => {
                let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                if *is_to_go {
                    connection.graceful_shutdown();
                }
                let pings = if keepalive_interval.is_zero() { None } else { connection.ping_pong() };
                let keepalive = pings
                    .map(|pings| Box::new(Keepalive::new(*keepalive_interval, *keepalive_timeout, pings)));
                self.stage = Stage::Calls { connection, keepalive };
                return self.poll(cx, observed);
            }
        };
        if let Some(keepalive) = keepalive
            && keepalive.poll(cx, observed).is_ready()
        {
            // A peer that was only slow learns so which of its calls were not begun.
            connection.abrupt_shutdown(Reason::NO_ERROR);
            let _ = connection.poll_closed(cx);
            return Poll::Ready(Err(ConnectionError::Unresponsive));
        }
        // h2 wakes whom it was polled by last once a call is answered. It is polled after that
        // anyway, so its first round wakes no task, which saves a turn.
        let mut unwoken = Context::from_waker(Waker::noop());
        loop {
            let mut come = Come { begun: Vec::new(), refused: Vec::new() };
            let (service, early) = (&self.service, self.early.as_ref());
            let mut end = accept(connection, service, early, &mut come, &mut unwoken);
            if come.is_empty() && end.is_pending() {
                end = accept(connection, service, early, &mut come, cx);
            }
            if come.is_empty() {
                return end;
            }
            if let Some(early) = early {
                for (respond, answer) in come.refused {
                    early.send(respond, answer);
                }
            }
            for exchange in come.begun {
                exchange.run(cx);
            }
            if end.is_ready() {
                return end;
            }
        }
    }
}

/// The calls that one turn of reading has brought.
struct Come<F, B: Body> {
    /// Begun, and not polled.
    begun: Vec<Pin<Box<Exchange<F, B>>>>,
    /// Answered without the service, and the answers not sent.
    refused: Vec<(SendResponse<B::Data>, Response<()>)>,
}

impl<F, B: Body> Come<F, B> {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.refused.is_empty()
    }
}

/// Begins the calls that have come. Ready once the connection is over.
fn accept<T, S, B>(
    connection: &mut Connection<T, B::Data>,
    service: &S,
    early: Option<&EarlyAnswers>,
    come: &mut Come<S::Future, B>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ConnectionError>>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<IncomingBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    B: Body<Data: Default + Send, Error: Into<BoxError>> + Send + 'static,
{
    while let Some((request, respond)) = ready!(connection.poll_accept(cx)).transpose()? {
        let mut request = request.map(|stream| StreamBody::new(stream).into());
        if let Some(answer) = early.and_then(|early| early.answer(&mut request)) {
            come.refused.push((respond, answer));
        } else {
            let is_head = request.method() == Method::HEAD;
            come.begun.push(Box::pin(Exchange::new(service.call(request), respond, is_head)));
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests;
