//! hyper's HTTP/2 answering every request with the same user: what a gRPC server
//! on hyper cannot be faster than. `raw-hyper PORT`.

use std::{convert::Infallible, env, error::Error, future::ready, net::Ipv4Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime, task,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A framed `UserResponse`: Ada Lovelace, ada@example.com, 36, u-1.
const REPLY: &[u8] = b"\0\0\0\0\x28\x0a\x26\x0a\x0cAda Lovelace\x12\x0fada@example.com\x18\x24\x22\x03u-1";

/// Keeps every task on the one thread there is.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        task::spawn_local(future);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::args().nth(1).ok_or("usage: raw-hyper PORT")?.parse()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    task::LocalSet::new().block_on(&runtime, serve(port))
}

async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        task::spawn_local(connection(stream));
    }
}

async fn connection(stream: TcpStream) {
    let service = service_fn(answer);
    // A client that goes away is no news here.
    let _ = http2::Builder::new(Local).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(REPLY)).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
