//! One HTTP/2 connection, and calls on it.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::{Result, target::Target};

/// Large enough that flow control never holds an answer back.
const WINDOW_BYTES: u32 = 8 << 20;

#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    /// Scheme and authority.
    server: String,
    authorization: Option<HeaderValue>,
}

/// What came back.
pub struct Reply {
    /// The gRPC status code.
    pub code: u16,
    body: Bytes,
}

impl Reply {
    /// The one message of a unary answer; empty where there is none.
    pub fn message(&self) -> &[u8] {
        self.body.get(5..).unwrap_or_default()
    }
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.addr).await?;
        stream.set_nodelay(true)?;
        match &target.tls {
            None => Self::over(stream, "http", target).await,
            Some(connector) => {
                let name = ServerName::IpAddress(target.addr.ip().into());
                Self::over(connector.connect(name, stream).await?, "https", target).await
            }
        }
    }

    async fn over<S>(stream: S, scheme: &str, target: &Target) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (send, connection) = client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await?;
        // Its error also comes out of every call on it.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let server = format!("{scheme}://{}", target.addr);
        Ok(Self { send, server, authorization: target.authorization.clone() })
    }

    pub async fn open_many(target: &Target, connections: usize) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(Self::open(target).await?);
        }
        Ok(all)
    }

    /// One unary call with a request that is framed already. Waits for a free stream.
    pub async fn call(&self, path: &str, request: Bytes, deadline: Option<Instant>) -> Result<Reply> {
        let (head, mut body) = self.send(path, request, deadline).await?.into_parts();
        let mut data = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            data.extend_from_slice(&chunk);
        }
        let code = match body.trailers().await? {
            Some(trailers) => code(&trailers),
            None => code(&head.headers),
        };
        Ok(Reply { code: code.ok_or("an answer without grpc-status")?, body: data.freeze() })
    }

    /// A call up to the head of its answer.
    pub async fn send(
        &self,
        path: &str,
        request: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Response<RecvStream>> {
        let mut head = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.server))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut send = self.send.clone().ready().await?;
        if let Some(authorization) = &self.authorization {
            head = head.header("authorization", authorization.clone());
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_micros();
            head = head.header("grpc-timeout", format!("{left}u"));
        }
        let (response, mut body) = send.send_request(head.body(())?, false)?;
        body.send_data(request, true)?;
        Ok(response.await?)
    }
}

fn code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
