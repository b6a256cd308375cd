//! Watches, each from the users that there are.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{Result, calls::frame, connection::Connection, messages::user::v1, target::Target};

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 10)]
    watches: usize,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

/// Counts the bytes that came.
pub async fn run(target: &Target, options: Options) -> Result<String> {
    let connection = Connection::open(target).await?;
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut watches = JoinSet::new();
    for _ in 0..options.watches {
        let connection = connection.clone();
        watches.spawn_local(async move { one(connection, until).await.map_err(|error| error.to_string()) });
    }
    let mut bytes = 0;
    while let Some(ended) = watches.join_next().await {
        bytes += ended??;
    }
    Ok(format!("{{\"watches\": {}, \"bytes\": {bytes}}}", options.watches))
}

async fn one(connection: Connection, until: Instant) -> Result<usize> {
    let request = v1::WatchUsersRequest { initial_state: true, ..v1::WatchUsersRequest::default() };
    let answer = connection.send("/user.v1.UserService/WatchUsers", frame(&request), None).await?;
    let (mut body, mut bytes) = (answer.into_body(), 0);
    // A watch that falls behind is ended by the server.
    while let Ok(Some(chunk)) = timeout_at(until, body.data()).await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes += chunk.len();
    }
    Ok(bytes)
}
