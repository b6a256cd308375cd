//! `grpc.health.v1.Health`, as the protocol has it: Check, List and Watch.

use std::{pin::Pin, time::Duration};

use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{Health, LIVENESS, State};
use crate::{
    proto::health::{HealthListRequest, HealthListResponse, health_server},
    rpc::status,
};

/// The longest message that a health call may have; a name is short.
const MAX_MESSAGE_BYTES: usize = 4 * 1_024;

/// How often a watched liveness is looked at: it changes by mere lapse of time.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

impl Health {
    /// The health protocol over this state, for messages of up to 4 KiB unless
    /// another limit is set.
    pub fn server(&self) -> health_server::HealthServer<Self> {
        health_server::HealthServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.get_ref().service) {
            Some(status) => Ok(Response::new(HealthCheckResponse { status: status.into() })),
            None => Err(status::unknown_health_name()),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let answer = |name| {
            let status = self.status(name).unwrap_or(ServingStatus::Unknown);
            (String::from(name), HealthCheckResponse { status: status.into() })
        };
        Ok(Response::new(HealthListResponse { statuses: self.names().map(answer).collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            health: self.clone(),
            changes: self.0.state.subscribe(),
            name: self.names().find(|name| *name == request.get_ref().service),
            sent: None,
            ended: false,
        };
        let stream = stream::unfold(watcher, |mut watcher| async {
            let item = watcher.next().await?;
            Some((item, watcher))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One open Watch.
struct Watcher {
    health: Health,
    changes: watch::Receiver<State>,
    /// `None` for a name that is not known.
    name: Option<&'static str>,
    sent: Option<ServingStatus>,
    ended: bool,
}

impl Watcher {
    /// The first status immediately, then every one that differs from the one before.
    async fn next(&mut self) -> Option<Result<HealthCheckResponse, Status>> {
        loop {
            if self.ended {
                return None;
            }
            let streams_ended = self.changes.borrow_and_update().streams_ended;
            let now =
                self.name.and_then(|name| self.health.status(name)).unwrap_or(ServingStatus::ServiceUnknown);
            if self.sent != Some(now) {
                self.sent = Some(now);
                return Some(Ok(HealthCheckResponse { status: now.into() }));
            }
            if streams_ended {
                self.ended = true;
                return Some(Err(status::draining()));
            }
            self.changed().await;
        }
    }

    async fn changed(&mut self) {
        if self.name == Some(LIVENESS) {
            // Either way the status is looked at again.
            let _ = tokio::time::timeout(LIVENESS_INTERVAL, self.changes.changed()).await;
        } else if self.changes.changed().await.is_err() {
            self.ended = true;
        }
    }
}
