//! One HTTP/2 connection, and calls on it.

use std::{net::SocketAddr, time::Instant};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;

use crate::Result;

/// Large enough that flow control never holds an answer back.
const WINDOW_BYTES: u32 = 8 << 20;

#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
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
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await?;
        // Its error also comes out of every call on it.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self { send, authority: addr.to_string() })
    }

    pub async fn open_many(addr: SocketAddr, connections: usize) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(Self::open(addr).await?);
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
            .uri(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut send = self.send.clone().ready().await?;
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
