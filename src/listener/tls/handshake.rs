//! The TLS handshakes of one serving thread: bounded in time, in number and in CPU.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::{AlertDescription, CertificateError, Error};
use tokio::{
    net::TcpStream,
    select,
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::super::{
    ListenerPhase,
    lifetime::{Action, Lifetime},
};
use super::{
    Tls, client_certificate::identity, metrics::HandshakeOutcome, transport::Transport, turns::Turns,
};
use crate::rpc::peer::PeerIdentity;

/// The name of HTTP/2 that a client asks for (RFC 9113, 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// The name of HTTP/1.1 (RFC 7301, 6). A client that asks for neither is refused; one that
/// names no protocol at all is heard, and its first bytes tell.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Handshakes under way on one thread. A handshake holds some 30 KiB.
const MAX_UNDER_WAY: usize = 1_024;

/// The handshakes of one serving thread.
#[derive(Debug)]
pub struct Handshakes {
    tls: Tls,
    turns: Turns,
    under_way: Mutex<UnderWay>,
}

/// The handshakes under way, the oldest first, each with what ends it when dropped.
#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    handshakes: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A handshake that failed.
pub struct Refused {
    /// The connection, where its client is to read an alert before it is closed.
    pub told: Option<Transport>,
}

impl Handshakes {
    pub fn new(tls: Tls) -> Self {
        Self { tls, turns: Turns::default(), under_way: Mutex::default() }
    }

    /// Makes the handshake with a new client. `lifetime` and `phase` limit its time.
    pub async fn accept(
        &self,
        socket: TcpStream,
        mut lifetime: Lifetime,
        mut phase: watch::Receiver<ListenerPhase>,
    ) -> Result<(Transport, Option<PeerIdentity>), Refused> {
        let (_under_way, mut evicted) = self.enter();
        let accept = self.tls.acceptor().accept(socket).into_fallible();
        let mut accepted = pin!(self.turns.run(accept));
        let ended = loop {
            let Action::Wait(until) = lifetime.next_action(Instant::now(), false, None) else {
                break Err((HandshakeOutcome::Timeout, None));
            };
            select! {
                biased;
                accepted = accepted.as_mut() => break established(accepted),
                _ = &mut evicted => break Err((HandshakeOutcome::Evicted, None)),
                _ = phase.changed(), if lifetime.ending().is_none() => lifetime.drain(Instant::now()),
                () = sleep_until(until) => {}
            }
        };
        let outcome = ended.as_ref().map_or_else(|(outcome, _)| *outcome, |_| HandshakeOutcome::Ok);
        self.tls.metrics.handshake(outcome);
        ended.map_err(|(_, told)| Refused { told })
    }

    /// Registers a handshake. Where there are too many, the oldest makes room: an honest
    /// client takes milliseconds, so the oldest one is silent.
    fn enter(&self) -> (impl Sized, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let mut under_way = self.under_way();
        if under_way.handshakes.len() >= MAX_UNDER_WAY {
            under_way.handshakes.pop_first();
        }
        let number = under_way.next;
        under_way.next += 1;
        under_way.handshakes.insert(number, end);
        (Entry { handshakes: self, number }, ended)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entry<'a> {
    handshakes: &'a Handshakes,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.handshakes.under_way().handshakes.remove(&self.number);
    }
}

type Ended = Result<(Transport, Option<PeerIdentity>), (HandshakeOutcome, Option<Transport>)>;

/// What a finished handshake comes to.
fn established(accepted: Result<TlsStream<TcpStream>, (io::Error, TcpStream)>) -> Ended {
    let stream = match accepted {
        Ok(stream) => Box::new(stream),
        Err((error, socket)) => {
            let outcome = outcome(&error);
            let is_told = outcome != HandshakeOutcome::Closed;
            return Err((outcome, is_told.then_some(Transport::Plain(socket))));
        }
    };
    let session = stream.get_ref().1;
    let peer = session.peer_certificates().and_then(|chain| chain.first()).map(identity);
    match peer.transpose() {
        Ok(peer) => Ok((Transport::Tls(stream), peer.flatten())),
        // The verifier has looked already, so this never happens.
        Err(_) => Err((HandshakeOutcome::CertificateUnusable, Some(Transport::Tls(stream)))),
    }
}

/// Why a handshake failed.
fn outcome(error: &io::Error) -> HandshakeOutcome {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return match error.kind() {
            ErrorKind::InvalidData => HandshakeOutcome::Protocol,
            _ => HandshakeOutcome::Closed,
        };
    };
    match error {
        Error::InvalidMessage(_) => HandshakeOutcome::NotTls,
        Error::PeerIncompatible(_) => HandshakeOutcome::Incompatible,
        Error::NoApplicationProtocol => HandshakeOutcome::Alpn,
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
            HandshakeOutcome::Closed
        }
        Error::AlertReceived(_) => HandshakeOutcome::Alert,
        Error::NoCertificatesPresented => HandshakeOutcome::NoCertificate,
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => HandshakeOutcome::CertificateExpired,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                HandshakeOutcome::CertificateUntrusted
            }
            _ => HandshakeOutcome::CertificateUnusable,
        },
        _ => HandshakeOutcome::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, OtherError, PeerIncompatible};

    use super::*;
    use crate::rpc::peer::BadIdentity;

    #[test]
    fn each_failure_has_its_reason() {
        let ambiguous = CertificateError::Other(OtherError(Arc::new(BadIdentity::Ambiguous)));
        for (error, name) in [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "not_tls"),
            (Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered), "incompatible"),
            (Error::NoApplicationProtocol, "alpn"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "alert"),
            (Error::NoCertificatesPresented, "no_certificate"),
            (Error::InvalidCertificate(CertificateError::Expired), "certificate_expired"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "certificate_untrusted"),
            (Error::InvalidCertificate(ambiguous), "certificate_unusable"),
            (Error::DecryptError, "protocol"),
        ] {
            assert_eq!(outcome(&io::Error::new(ErrorKind::InvalidData, error)).name(), name);
        }
        assert_eq!(outcome(&ErrorKind::ConnectionReset.into()).name(), "closed");
        assert_eq!(outcome(&ErrorKind::UnexpectedEof.into()).name(), "closed");
    }
}
