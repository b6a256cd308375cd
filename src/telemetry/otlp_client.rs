//! Posting spans, and reading what the collector says to that.
//!
//! One that answers 200 may have refused spans all the same. The SDK says so in a log
//! line and calls it a success; here it can be counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::{blocking, redirect::Policy};
use rustls::ClientConfig;

/// How many spans the collector has refused of those that it took last.
pub type RejectedSpans = Arc<AtomicUsize>;

/// A client for one exporter, which sends one batch after the other.
#[derive(Debug)]
pub struct OtlpClient {
    client: blocking::Client,
    refused: RejectedSpans,
}

impl OtlpClient {
    /// `tls` is for a collector over https.
    pub fn new(refused: RejectedSpans, timeout: Duration, tls: ClientConfig) -> Result<Self, String> {
        // It must not be made on a thread of an async runtime.
        let build = move || {
            // A redirect turns the POST into a GET, which loses the spans and is answered with 200.
            blocking::Client::builder()
                .timeout(timeout)
                .redirect(Policy::none())
                .tls_backend_preconfigured(tls)
                .build()
        };
        let made = thread::spawn(build).join();
        let client =
            made.map_err(|_| "its making panicked".to_owned())?.map_err(|error| error.to_string())?;
        Ok(Self { client, refused })
    }
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.send_bytes(request).await?;
        if answer.status().is_success() {
            self.refused.store(refused(answer.body()), Relaxed);
        }
        Ok(answer)
    }
}

/// How many spans this answer refuses: all of them, where it is not a collector's.
fn refused(answer: &[u8]) -> usize {
    let Ok(answer) = ExportTraceServiceResponse::decode(answer) else { return usize::MAX };
    answer.partial_success.map_or(0, |partly| usize::try_from(partly.rejected_spans).unwrap_or(0))
}
