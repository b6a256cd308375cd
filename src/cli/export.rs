//! `export`: every user of a server as JSON Lines.
//!
//! It reads pages, so it takes no snapshot. A user that exists during the whole export
//! is in it once; a user that changes during the export is in it as before or as after.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use indicatif::ProgressBar;
use tonic::transport::Channel;

use super::{
    client, jsonl,
    retry::{CONNECT_TIMEOUT, CallError, Retry},
};
use crate::proto::user::v1::{ListUsersRequest, ListUsersResponse, user_service_client::UserServiceClient};

const PAGE: i32 = 1_000;

/// From where to where.
#[derive(Debug)]
pub struct Export {
    pub server: String,
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
            return self.pages(&mut BufWriter::new(io::stdout()), progress).await;
        };
        let part = part_of(path);
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let written = async {
            let mut file = BufWriter::new(private(&part).map_err(failed)?);
            let count = self.pages(&mut file, progress).await?;
            file.get_ref().sync_all().and_then(|()| fs::rename(&part, path)).map_err(failed)?;
            Ok(count)
        };
        let written = written.await;
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    async fn pages(&self, out: &mut impl Write, progress: &ProgressBar) -> Result<usize, String> {
        let mut retry = Retry::new(self.retry_timeout);
        let (mut client, mut page_token, mut count) = (None, String::new(), 0);
        loop {
            let page = match self.page(&mut client, &page_token).await {
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
                writeln!(out, "{line}").map_err(|error| format!("cannot write: {error}"))?;
                count += 1;
            }
            progress.set_position(count as u64);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                out.flush().map_err(|error| format!("cannot write: {error}"))?;
                return Ok(count);
            }
        }
    }

    async fn page(
        &self,
        client: &mut Option<UserServiceClient<Channel>>,
        page_token: &str,
    ) -> Result<ListUsersResponse, CallError> {
        let client = if let Some(client) = client {
            client
        } else {
            let channel =
                client::connect(&self.server, CONNECT_TIMEOUT).await.map_err(CallError::Retryable)?;
            client.insert(UserServiceClient::new(channel).max_decoding_message_size(usize::MAX))
        };
        let request = ListUsersRequest { page_size: PAGE, page_token: page_token.into() };
        Ok(client.list_users(request).await?.into_inner())
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// A new file that only its owner may read, for it holds people's addresses.
fn private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
