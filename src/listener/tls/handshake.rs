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
    use std::{future::poll_fn, sync::Arc, time::Duration};

    use rustls::{InvalidMessage, OtherError, PeerIncompatible};
    use tokio::io::AsyncWriteExt;

    use super::{
        super::testing::{self, connection},
        *,
    };
    use crate::{config::Config, listener::lifetime::Timeouts, rpc::peer::BadIdentity};

    fn handshakes() -> Handshakes {
        Handshakes::new(testing::server().0)
    }

    fn lifetime() -> Lifetime {
        Lifetime::new(&Timeouts::new(&Config::default()), Instant::now())
    }

    #[tokio::test]
    async fn a_refused_client_is_told_and_one_that_has_closed_is_not() {
        let (handshakes, (_phase, phase)) = (handshakes(), watch::channel(ListenerPhase::Serving));
        for (sent, is_told) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], true), (b"", false)] {
            let (server, mut client) = connection().await;
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let Err(refused) = handshakes.accept(server, lifetime(), phase.clone()).await else {
                panic!("this is not TLS");
            };
            assert_eq!(refused.told.is_some(), is_told, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_handshake_that_has_ended_takes_no_place() {
        let (handshakes, (_phase, phase)) = (handshakes(), watch::channel(ListenerPhase::Serving));
        let (server, client) = connection().await;
        let mut accepted = pin!(handshakes.accept(server, lifetime(), phase));
        assert!(futures_util::poll!(accepted.as_mut()).is_pending());
        assert_eq!(handshakes.under_way().handshakes.len(), 1);
        drop(client);
        assert!(accepted.await.is_err());
        assert_eq!(handshakes.under_way().handshakes.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_handshake_waits_for_the_end_of_a_drain_without_work() {
        let (handshakes, (begins, phase)) = (handshakes(), watch::channel(ListenerPhase::Draining));
        let (server, _client) = connection().await;
        // As if it were told again and again.
        drop(begins);
        let (began, mut polls) = (Instant::now(), 0);
        let mut accepted = pin!(handshakes.accept(server, lifetime(), phase));
        let ended = poll_fn(|cx| {
            polls += 1;
            assert!(polls < 100, "it does not wait");
            accepted.as_mut().poll(cx)
        });
        assert!(ended.await.is_err());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

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
