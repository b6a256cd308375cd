//! A client that makes calls as gRPC libraries do, with any bytes in them.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Ping, RecvStream, client::SendRequest};
use http::{HeaderMap, Request, response::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::TEST_TIMEOUT;

/// A connection to make calls on.
#[derive(Clone)]
pub struct GrpcClient {
    send: SendRequest<Bytes>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub http: u16,
    /// `grpc-status`, as the server spelt it.
    pub grpc: Option<String>,
    pub message: String,
}

impl Answer {
    pub fn code(&self) -> i32 {
        let code = self.grpc.as_ref().unwrap_or_else(|| panic!("no grpc-status in {self:?}"));
        code.parse().unwrap_or_else(|_| panic!("not a status: {self:?}"))
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum Lost {
    /// The server has said that it did not and will not process it: it may go elsewhere.
    Unprocessed,
    Failed(h2::Error),
}

impl Lost {
    fn of(error: h2::Error) -> Self {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if error.is_remote() && (error.is_go_away() || refused) {
            Self::Unprocessed
        } else {
            Self::Failed(error)
        }
    }
}

impl GrpcClient {
    /// Connects. A connection counts once the server has spoken, as for every gRPC
    /// client.
    pub async fn connect(addr: SocketAddr) -> Option<Self> {
        Self::over(TcpStream::connect(addr).await.ok()?).await
    }

    /// The same over a connection that is made already.
    pub async fn over<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: T) -> Option<Self> {
        let (send, mut connection) = h2::client::handshake(stream).await.ok()?;
        let mut ping = connection.ping_pong().expect("it is taken once");
        drop(tokio::spawn(connection));
        ping.ping(Ping::opaque()).await.ok()?;
        Some(Self { send })
    }

    /// Makes one call, whose message frames are `body`, and waits for its end.
    pub async fn call(&self, request: Request<()>, body: impl Into<Bytes>) -> Result<Answer, Lost> {
        let exchange = self.exchange(request, body.into());
        timeout(TEST_TIMEOUT, exchange).await.expect("every call is answered in time")
    }

    /// Makes one call, and waits until its answer begins.
    pub async fn begin(&self, request: Request<()>, body: Bytes) -> Result<(Parts, RecvStream), Lost> {
        // Whatever fails up to here was never sent.
        let mut send = self.send.clone().ready().await.map_err(|_| Lost::Unprocessed)?;
        let (response, mut stream) = send.send_request(request, false).map_err(|_| Lost::Unprocessed)?;
        // The server may answer before it has read the body: the answer is what counts.
        let _ = stream.send_data(body, true);
        Ok(response.await.map_err(Lost::of)?.into_parts())
    }

    async fn exchange(&self, request: Request<()>, body: Bytes) -> Result<Answer, Lost> {
        let (head, mut body) = self.begin(request, body).await?;
        let trailers = rest(&mut body).await?;
        let field = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name))?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (grpc, message) = (field("grpc-status"), field("grpc-message").unwrap_or_default());
        Ok(Answer { http: head.status.as_u16(), grpc, message })
    }
}

/// Reads an answer to its end, and returns its trailers.
pub async fn rest(body: &mut RecvStream) -> Result<HeaderMap, Lost> {
    while let Some(data) = body.data().await {
        let len = data.map_err(Lost::of)?.len();
        let _ = body.flow_control().release_capacity(len);
    }
    Ok(body.trailers().await.map_err(Lost::of)?.unwrap_or_default())
}

/// The head of a call, as it should be.
pub fn head(path: &str) -> http::request::Builder {
    Request::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A message with its length in front.
pub fn framed(message: &[u8]) -> Bytes {
    prefixed(0, u32::try_from(message.len()).expect("it is small"), message)
}

/// A message with whatever is said of it in front.
pub fn prefixed(flag: u8, len: u32, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(flag);
    bytes.put_u32(len);
    bytes.put_slice(message);
    bytes.freeze()
}
