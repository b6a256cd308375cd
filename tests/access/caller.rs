//! Calls with any path, headers and bytes, and what each was told.

use std::{net::SocketAddr, sync::Arc};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use prost::Message;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic_types::pb::{ErrorInfo, RetryInfo};

use crate::support::{
    TEST_TIMEOUT,
    certificates::SERVER_NAME,
    grpc_client::{GrpcClient, Lost, framed, head, rest},
};

/// A connection to make calls on.
#[derive(Clone)]
pub struct Caller {
    client: GrpcClient,
}

/// What a call was told: its status, and of a watch OK with its first message.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub code: Code,
    /// Of `ErrorInfo`; empty for OK.
    pub reason: String,
    pub message: String,
    pub retry_after_ms: Option<u64>,
    pub pushback_ms: Option<u64>,
}

impl Told {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let code = Code::from_bytes(text("grpc-status")?.as_bytes());
        let details = text("grpc-status-details-bin").unwrap_or_default();
        let details = STANDARD_NO_PAD.decode(&details).or_else(|_| STANDARD.decode(&details)).unwrap();
        let status = tonic_types::Status::decode(&details[..]).unwrap();
        assert!(code != Code::PermissionDenied || status.details.len() == 1, "a hint: {status:?}");
        let (mut reason, mut retry_after_ms) = (String::new(), None);
        for any in &status.details {
            match any.type_url.rsplit('/').next().unwrap() {
                "google.rpc.ErrorInfo" => {
                    let info = ErrorInfo::decode(&any.value[..]).unwrap();
                    let denied = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
                    assert!(!denied || info.metadata.is_empty(), "a hint: {info:?}");
                    reason = info.reason;
                }
                "google.rpc.RetryInfo" => {
                    let delay = RetryInfo::decode(&any.value[..]).unwrap().retry_delay;
                    let delay = delay.unwrap();
                    let ms = delay.seconds * 1_000 + i64::from(delay.nanos) / 1_000_000;
                    retry_after_ms = Some(u64::try_from(ms).unwrap());
                }
                _ => {}
            }
        }
        Some(Self {
            code,
            reason,
            message: text("grpc-message").unwrap_or_default().replace("%20", " "),
            retry_after_ms,
            pushback_ms: text("grpc-retry-pushback-ms").map(|text| text.parse().unwrap()),
        })
    }

    fn ok() -> Self {
        let (reason, message) = (String::new(), String::new());
        Self { code: Code::Ok, reason, message, retry_after_ms: None, pushback_ms: None }
    }
}

/// A call whose answer has begun, in flight until it is dropped.
pub struct Begun {
    pub told: Told,
    _body: Option<h2::RecvStream>,
}

impl Caller {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(direct(addr).await).await.unwrap()
    }

    /// From another address of this machine; `None` where the server closes the connection.
    pub async fn connect_from(local: [u8; 4], addr: SocketAddr) -> Option<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((local, 0).into()).unwrap();
        Self::over(socket.connect(addr).await.unwrap()).await
    }

    /// By TLS, as this configuration has it; `None` where the server refuses the client.
    pub async fn connect_by_tls(addr: SocketAddr, config: ClientConfig) -> Option<Self> {
        let stream = direct(addr).await;
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        Self::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Option<Self> {
        Some(Self { client: GrpcClient::over(stream).await? })
    }

    /// A call with one message and these values of `authorization`.
    pub async fn call(&self, path: &str, authorization: &[&str], message: &[u8]) -> Told {
        self.begin(path, authorization, message).await.told
    }

    /// The same, with an answer that is not read further.
    pub async fn begin(&self, path: &str, authorization: &[&str], message: &[u8]) -> Begun {
        let mut request = head(path);
        for value in authorization {
            request = request.header("authorization", *value);
        }
        let exchange = self.exchange(request.body(()).unwrap(), framed(message));
        timeout(TEST_TIMEOUT, exchange).await.expect("every call is answered in time").unwrap()
    }

    /// Any request at all.
    pub async fn send(&self, request: Request<()>, message: &[u8]) -> Result<Told, Lost> {
        Ok(self.exchange(request, framed(message)).await?.told)
    }

    async fn exchange(&self, request: Request<()>, body: Bytes) -> Result<Begun, Lost> {
        let is_endless =
            request.uri().path().ends_with("/WatchUsers") || request.uri().path().ends_with("/Watch");
        let (head, mut body) = self.client.begin(request, body).await?;
        if let Some(told) = Told::of(&head.headers) {
            return Ok(Begun { told, _body: None });
        }
        if head.status != 200 {
            let message = format!("HTTP {}", head.status);
            return Ok(Begun { told: Told { code: Code::Unknown, message, ..Told::ok() }, _body: None });
        }
        if is_endless && body.data().await.is_some_and(|data| data.is_ok()) {
            return Ok(Begun { told: Told::ok(), _body: Some(body) });
        }
        let trailers = rest(&mut body).await?;
        Ok(Begun { told: Told::of(&trailers).expect("a status"), _body: None })
    }
}

/// A connection on which a small frame waits for no other one.
async fn direct(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The value of `authorization` for a token.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
