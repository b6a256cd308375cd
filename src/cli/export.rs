//! `export`: every user of a server as JSON Lines.
//!
//! It reads pages, so it takes no snapshot. A user that exists during the whole export
//! is in it once; a user that changes during the export is in it as before or as after.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use indicatif::ProgressBar;

use super::{
    client::{self, Connection},
    jsonl,
    output::Output,
    retry::{CONNECT_TIMEOUT, CallError, Retry},
    target::Target,
};
use crate::proto::user::v1::{ListUsersRequest, ListUsersResponse, user_service_client::UserServiceClient};

const PAGE: i32 = 1_000;

/// From where to where.
#[derive(Debug)]
pub struct Export {
    pub server: Target,
    /// `None`: stdout.
    pub output: Option<PathBuf>,
    /// How long to try again without a page.
    pub retry_timeout: Duration,
}

impl Export {
    pub async fn run(self) -> ExitCode {
        let progress = ProgressBar::new_spinner();
        let done = self.all(&progress).await;
        progress.finish_and_clear();
        match done {
            Ok(count) => {
                eprintln!("export: {count} users");
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("export: {why}");
                ExitCode::FAILURE
            }
        }
    }

    async fn all(&self, progress: &ProgressBar) -> Result<usize, String> {
        let Some(path) = &self.output else {
            return self.pages(&mut io::stdout(), "stdout", progress).await;
        };
        let name = path.display().to_string();
        let failed = |error: io::Error| format!("{name}: {error}");
        let mut output = Output::open(path).map_err(failed)?;
        let count = self.pages(&mut output, &name, progress).await?;
        output.finish().map_err(failed)?;
        Ok(count)
    }

    async fn pages(&self, out: &mut impl Write, name: &str, progress: &ProgressBar) -> Result<usize, String> {
        let failed = |error: io::Error| format!("cannot write to {name}: {error}");
        let mut out = BufWriter::new(out);
        let mut retry = Retry::new(self.retry_timeout);
        let (mut client, mut page_token, mut count) = (None, String::new(), 0);
        loop {
            let page = match self.page(&mut retry, &mut client, &page_token).await {
                Ok(page) => page,
                Err(broken) => {
                    client = None;
                    retry.pause(broken).await?;
                    continue;
                }
            };
            retry.progressed();
            for user in page.users {
                let line = jsonl::write(user).map_err(|error| error.to_string())?;
                writeln!(out, "{line}").map_err(failed)?;
                count += 1;
            }
            progress.set_position(count as u64);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                out.flush().map_err(failed)?;
                return Ok(count);
            }
        }
    }

    async fn page(
        &self,
        retry: &mut Retry,
        client: &mut Option<UserServiceClient<Connection>>,
        page_token: &str,
    ) -> Result<ListUsersResponse, CallError> {
        let request = ListUsersRequest { page_size: PAGE, page_token: page_token.into() };
        if let Some(client) = client {
            return Ok(client.list_users(request).await?.into_inner());
        }
        let first = async {
            let channel =
                client::connect(&self.server, CONNECT_TIMEOUT).await.map_err(CallError::Retryable)?;
            let client = client.insert(UserServiceClient::new(channel).max_decoding_message_size(usize::MAX));
            Ok(client.list_users(request).await?.into_inner())
        };
        retry.begin(first).await
    }
}
