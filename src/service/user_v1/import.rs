//! An import as a stream of answers.
//!
//! Requests become writes like all others, so many of them at a time that the
//! store always has a batch to commit and another one waiting. No stream's requests
//! are read further ahead than that: a caller that sends faster than users are
//! stored, or does not read its answers, is held up by HTTP/2's flow control.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    future::BoxFuture,
    stream::{self, FuturesOrdered, Stream, StreamExt},
};
use metrics::{Counter, counter};
use tokio::{sync::Semaphore, time};
use tonic::{Code, Status, Streaming};

use super::{fields::message, request};
use crate::{
    domain::{Deadline, Error, Store, UserId, Write},
    proto::user::v1::{self as pb, import_users_response::Result as ImportResult},
    rpc::{audit::AuditRecord, goaway::GoAwayReceiver, status},
    service::error_status,
    util::counter::at_zero,
};

pub type ImportResponses = Pin<Box<dyn Stream<Item = Result<pb::ImportUsersResponse, Status>> + Send>>;

/// The most outstanding writes of all imports together: twice a batch, and half of the
/// default queue. So imports never fill the queue. Also how far each stream reads ahead.
const MAX_USERS_IN_FLIGHT: usize = 512;

/// How long a stream may have nothing to do and keep its place.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// One import.
pub struct ImportStream {
    pub store: Arc<dyn Store>,
    pub deadline: Deadline,
    pub requests: Streaming<pb::ImportUsersRequest>,
    pub max_message_bytes: usize,
    pub goaway: GoAwayReceiver,
    pub shared: Arc<ImportLimits>,
    /// Where a line is written for each user; `None` where none is.
    pub audit: Option<Arc<AuditRecord>>,
}

/// An import under way.
struct ImportState {
    import: ImportStream,
    /// How many requests were taken up.
    taken: i64,
    storing: FuturesOrdered<BoxFuture<'static, Result<pb::ImportUsersResponse, Status>>>,
    /// Why no more requests are taken up, once none are.
    end: Option<Result<(), Status>>,
}

impl ImportStream {
    /// An answer to each request, and why they end.
    pub fn answers(self) -> ImportResponses {
        let state = ImportState { import: self, taken: 0, storing: FuturesOrdered::new(), end: None };
        Box::pin(stream::unfold(Some(state), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(state))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))
    }
}

impl ImportState {
    async fn next(&mut self) -> Result<Option<pb::ImportUsersResponse>, Status> {
        loop {
            let takes = self.end.is_none() && self.storing.len() < MAX_USERS_IN_FLIGHT;
            tokio::select! {
                biased;
                Some(answer) = self.storing.next(), if !self.storing.is_empty() => {
                    let answer = answer?;
                    self.import.shared.count(&answer);
                    return Ok(Some(answer));
                }
                reason = self.import.goaway.received(), if self.end.is_none() => {
                    self.end = Some(Err(status::goaway(reason)));
                }
                request = self.import.requests.message(), if takes => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => self.end = Some(Ok(())),
                    Err(status) => {
                        self.end = Some(Err(status::with_error_details(&status, self.import.max_message_bytes)));
                    }
                },
                () = time::sleep(IDLE_TIMEOUT), if takes && self.storing.is_empty() => {
                    self.end = Some(Err(status::import_idle()));
                }
                else => return self.end.take().unwrap_or(Ok(())).map(|()| None),
            }
        }
    }

    fn take(&mut self, request: pb::ImportUsersRequest) {
        let (store, deadline, index) = (Arc::clone(&self.import.store), self.import.deadline, self.taken);
        let (shared, audit) = (Arc::clone(&self.import.shared), self.import.audit.clone());
        self.taken += 1;
        self.storing.push_back(Box::pin(async move {
            let _place = shared.room.acquire().await.map_err(|_| status::internal())?;
            let mut line = audit.map(|record| AuditLine::begin(record, &request.user_id));
            let result = import(&*store, &request, deadline).await;
            if let Some(line) = &mut line {
                line.end(&result);
            }
            Ok(pb::ImportUsersResponse { index, result: Some(result?) })
        }));
    }
}

/// The audit line of one user, written when it is dropped: a stream may end during a commit,
/// and the user is stored all the same.
struct AuditLine {
    record: Arc<AuditRecord>,
    user: Option<UserId>,
    /// `None`: no write, and no line.
    code: Option<Code>,
}

impl AuditLine {
    fn begin(record: Arc<AuditRecord>, user_id: &str) -> Self {
        Self { record, user: UserId::parse(user_id).ok(), code: Some(Code::Cancelled) }
    }

    /// How the write ended. A user that was there already is none.
    fn end(&mut self, result: &Result<ImportResult, Status>) {
        self.code = match result {
            Ok(ImportResult::Created(user)) => {
                self.user = UserId::parse(&user.id).ok();
                Some(Code::Ok)
            }
            Ok(ImportResult::Unchanged(_)) => None,
            Ok(ImportResult::Error(status)) => Some(Code::from_i32(status.code)),
            Err(status) => Some(status.code()),
        };
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            self.record.item(self.user.as_ref(), code);
        }
    }
}

/// Stores one user, or returns why it is refused.
///
/// # Errors
/// A failure of the store, or of the whole stream.
async fn import(
    store: &dyn Store,
    request: &pb::ImportUsersRequest,
    deadline: Deadline,
) -> Result<ImportResult, Status> {
    let refused =
        |error| Ok(ImportResult::Error(status::to_proto(&error_status::for_user(error, &request.user_id))));
    let change = match request::import(request) {
        Ok(change) => change,
        Err(error) => return refused(error),
    };
    let write = Write { change, idempotency: None, validate_only: false };
    let written = loop {
        match store.write(write.clone(), deadline).await {
            // Retrying terminates: imports fill at most half of the queue.
            Err(Error::Overloaded { retry_delay }) => time::sleep(retry_delay).await,
            Err(error @ (Error::AlreadyExists(_) | Error::RefusedByStore(_))) => return refused(error),
            done => break done.map_err(error_status::from_error)?,
        }
    };
    let user = written.user.as_ref().map(message).ok_or_else(status::internal)?;
    Ok(if written.revision == 0 { ImportResult::Unchanged(user) } else { ImportResult::Created(user) })
}

/// What all imports share: how many users there were, and [`MAX_USERS_IN_FLIGHT`] places.
pub struct ImportLimits {
    created: Counter,
    unchanged: Counter,
    refused: Counter,
    room: Semaphore,
}

impl ImportLimits {
    pub fn new() -> Self {
        let outcome =
            |name: &'static str| at_zero(counter!("user_service_imported_total", "outcome" => name));
        Self {
            created: outcome("created"),
            unchanged: outcome("unchanged"),
            refused: outcome("refused"),
            room: Semaphore::new(MAX_USERS_IN_FLIGHT),
        }
    }

    fn count(&self, answer: &pb::ImportUsersResponse) {
        match answer.result {
            Some(ImportResult::Created(_)) => self.created.increment(1),
            Some(ImportResult::Unchanged(_)) => self.unchanged.increment(1),
            Some(ImportResult::Error(_)) | None => self.refused.increment(1),
        }
    }
}
