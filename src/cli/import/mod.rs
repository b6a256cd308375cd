//! `import`: stores users from JSON Lines on a server.
//!
//! What was sent and not answered is kept, and sent again over another connection
//! when one breaks: to import a user again changes nothing. So nothing need be
//! remembered from one run to the next either.

mod report;
mod source;

use std::{collections::VecDeque, path::PathBuf, process::ExitCode, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::{
    report::ImportReport,
    source::{Item, Items},
};
use super::{
    REFUSED, client,
    retry::{CONNECT_TIMEOUT, CallError, Retry},
    target::Target,
};
use crate::proto::user::v1::{
    ImportUsersRequest, ImportUsersResponse, import_users_response::Result as ImportResult,
    user_service_client::UserServiceClient,
};

/// The most users that are kept for their answers.
const MAX_UNANSWERED: usize = 2_048;

/// From where to where.
#[derive(Debug)]
pub struct Import {
    pub server: Target,
    /// `-`: stdin.
    pub files: Vec<PathBuf>,
    /// Where to say what was refused; `None`: stderr.
    pub report: Option<PathBuf>,
    /// How long to try again without an answer.
    pub retry_timeout: Duration,
}

/// A user that is not answered for.
struct Waiting {
    item: Item,
    request: ImportUsersRequest,
}

/// The state of an import over all of its connections.
struct Work {
    items: Items,
    /// Whether there are no more items.
    exhausted: bool,
    waiting: VecDeque<Waiting>,
    report: ImportReport,
    retry: Retry,
}

impl Import {
    pub async fn run(self) -> ExitCode {
        let report = match ImportReport::new(&self.files, self.report.as_deref()) {
            Ok(report) => report,
            Err(why) => {
                eprintln!("import: {why}");
                return ExitCode::FAILURE;
            }
        };
        let mut work = Work {
            items: source::read(self.files.clone()),
            exhausted: false,
            waiting: VecDeque::new(),
            report,
            retry: Retry::new(self.retry_timeout),
        };
        let done = self.all(&mut work).await;
        let ended = done.and(work.report.finish());
        eprintln!("import: {}", work.report);
        match ended {
            Ok(()) if work.report.refused == 0 => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(REFUSED),
            Err(why) => {
                eprintln!("import: {why}");
                ExitCode::FAILURE
            }
        }
    }

    async fn all(&self, work: &mut Work) -> Result<(), String> {
        loop {
            // A server ends a stream that has nothing to do, so there is one only when there is.
            while work.waiting.is_empty() {
                if work.exhausted {
                    return Ok(());
                }
                work.read().await?;
                work.retry.progressed();
            }
            if let Err(broken) = self.stream(work).await {
                work.retry.pause(broken).await?;
            }
        }
    }

    /// Sends the waiting lines and reads further ones until every request is answered.
    async fn stream(&self, work: &mut Work) -> Result<(), CallError> {
        let (sender, requests) = mpsc::channel(1);
        // The server answers with a head before any user is sent.
        let begin = async {
            let channel =
                client::connect(&self.server, CONNECT_TIMEOUT).await.map_err(CallError::Retryable)?;
            let mut client = UserServiceClient::new(channel);
            Ok(client.import_users(ReceiverStream::new(requests)).await?.into_inner())
        };
        let mut answers = work.retry.begin(begin).await?;
        // Dropped when there is nothing more to send.
        let mut sender = Some(sender);
        // Of those that wait, how many were sent; and how many were answered.
        let (mut sent, mut answered) = (0, 0);
        loop {
            if work.exhausted && sent == work.waiting.len() {
                sender = None;
            }
            tokio::select! {
                biased;
                answer = answers.message() => match answer? {
                    Some(answer) if sent > 0 && answer.index == answered => {
                        work.answered(answer)?;
                        answered += 1;
                        sent -= 1;
                    }
                    Some(_) => return Err(CallError::Fatal("the server sent an answer without a request".into())),
                    None if work.exhausted && work.waiting.is_empty() => return Ok(()),
                    None => return Err(CallError::Retryable("the server ended the stream early".into())),
                },
                permit = reserve(sender.as_ref()), if sent < work.waiting.len() => {
                    permit.send(work.waiting[sent].request.clone());
                    sent += 1;
                }
                read = work.read(), if !work.exhausted && work.waiting.len() < MAX_UNANSWERED => {
                    read.map_err(CallError::Fatal)?;
                }
            }
        }
    }
}

impl Work {
    /// Reads the next line, if there is one.
    async fn read(&mut self) -> Result<(), String> {
        match self.items.recv().await.transpose()? {
            None => self.exhausted = true,
            Some(item) => match &item.request {
                Ok(request) => {
                    let request = request.clone();
                    self.waiting.push_back(Waiting { item, request });
                }
                Err(why) => self.report.refuse(&item, why)?,
            },
        }
        Ok(())
    }

    fn answered(&mut self, answer: ImportUsersResponse) -> Result<(), CallError> {
        let Some(Waiting { item, .. }) = self.waiting.pop_front() else { return Ok(()) };
        self.retry.progressed();
        match answer.result {
            Some(ImportResult::Created(_)) => self.report.created(&item),
            Some(ImportResult::Unchanged(_)) => self.report.unchanged(&item),
            Some(ImportResult::Error(error)) => {
                let code = tonic::Code::from(error.code);
                self.report
                    .refuse(&item, &format!("{code:?}: {}", error.message))
                    .map_err(CallError::Fatal)?;
            }
            None => return Err(CallError::Fatal("the server is of another version".into())),
        }
        Ok(())
    }
}

/// Room for one more request.
async fn reserve(sender: Option<&mpsc::Sender<ImportUsersRequest>>) -> mpsc::Permit<'_, ImportUsersRequest> {
    if let Some(sender) = sender
        && let Ok(permit) = sender.reserve().await
    {
        return permit;
    }
    // The stream is over, which its answers tell.
    std::future::pending().await
}
