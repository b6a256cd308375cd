//! A connection's bytes, with TLS or without.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    super::{lingering_close::Socket, metrics::Protocol},
    handshake::ALPN_HTTP2,
};

/// A socket, or the TLS over one.
#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    /// Boxed, because it is twenty times as large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// What the peer has asked to speak, where it has.
    pub fn protocol(&self) -> Option<Protocol> {
        let Self::Tls(tls) = self else { return None };
        match tls.get_ref().1.alpn_protocol()? {
            ALPN_HTTP2 => Some(Protocol::Http2),
            _ => Some(Protocol::Http1),
        }
    }

    /// Has the kernel find a dead peer that is owed nothing: HTTP/1 has no PING.
    pub fn probe_when_silent(&self, (interval, timeout): (Duration, Duration)) {
        /// Probes without an answer after which the peer is dead.
        const PROBES: u32 = 4;
        let between = (timeout / PROBES).max(Duration::from_secs(1));
        let probes = TcpKeepalive::new().with_time(interval.max(Duration::from_secs(1)));
        let probes = probes.with_interval(between).with_retries(PROBES);
        // A kernel that refuses leaves the peer to the limits on idle time and age.
        let _ = SockRef::from(self.tcp()).set_tcp_keepalive(&probes);
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl Socket for Transport {
    fn written(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.get_ref().1.wants_write(),
        }
    }

    fn expect_acknowledgment(&self) {
        self.tcp().expect_acknowledgment();
    }

    fn acknowledged(&self) -> bool {
        self.tcp().acknowledged()
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Over TLS, `close_notify` and then FIN.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{sleep, timeout},
    };

    use super::{
        super::testing::{connection, tls_connection},
        *,
    };

    #[tokio::test]
    async fn bytes_are_written_once_the_kernel_has_them_and_not_while_tls_keeps_them() {
        let (server, mut client) = tls_connection().await;
        let mut server = Transport::Tls(Box::new(server));
        assert!(server.written());
        let part = vec![0; 64 * 1_024];
        let mut sent = 0;
        // Until the kernel takes no more.
        while let Poll::Ready(len) = poll!(std::pin::pin!(server.write(&part))) {
            sent += len.unwrap();
        }
        assert!(!server.written());
        let reader = tokio::spawn(async move {
            client.read_exact(&mut vec![0; sent]).await.unwrap();
        });
        server.flush().await.unwrap();
        assert!(server.written());
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn bytes_that_nobody_reads_are_not_acknowledged() {
        const BYTES: usize = 48 * 1_024;
        let (server, mut client) = tls_connection().await;
        let mut server = Transport::Tls(Box::new(server));
        server.write_all(&vec![0; BYTES]).await.unwrap();
        server.flush().await.unwrap();
        server.expect_acknowledgment();
        assert!(!server.acknowledged());
        client.read_exact(&mut vec![0; BYTES]).await.unwrap();
        // The kernel tells nobody when.
        let told = async {
            while !server.acknowledged() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_mins(1), told).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_peer_is_probed_after_its_time() {
        let (server, _client) = connection().await;
        let transport = Transport::Plain(server);
        assert!(!SockRef::from(transport.tcp()).keepalive().unwrap());
        transport.probe_when_silent((Duration::from_secs(50), Duration::from_secs(20)));
        let socket = SockRef::from(transport.tcp());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(50));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
    }
}
