//! A full listing.

use std::time::Instant;

use prost::Message;

use crate::{
    Result, calls::frame, connection::Connection, messages::user::v1, summary::Summary, target::Target,
};

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 1_000)]
    page_size: i32,
    /// How many users there must be.
    #[arg(long)]
    users: usize,
}

/// The calls of the summary are pages.
pub async fn run(target: &Target, options: Options) -> Result<String> {
    let connection = Connection::open(target).await?;
    let (mut summary, mut seen, mut page_token) = (Summary::default(), 0, String::new());
    let began = Instant::now();
    loop {
        let page = Instant::now();
        let request = frame(&v1::ListUsersRequest { page_size: options.page_size, page_token });
        let reply = connection.call("/user.v1.UserService/ListUsers", request, None).await?;
        if reply.code != 0 {
            return Err(format!("ListUsers answered with status {}", reply.code).into());
        }
        let answer = v1::ListUsersResponse::decode(reply.message())?;
        summary.add(0, page);
        seen += answer.users.len();
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if seen != options.users {
        return Err(format!("the listing holds {seen} users, not {}", options.users).into());
    }
    Ok(summary.line(began.elapsed()))
}
