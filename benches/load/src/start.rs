//! The time from exec to SERVING, as a health check sees it.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use prost::Message;
use tokio::process::{Child, Command};

use crate::{
    Result,
    calls::frame,
    connection::Connection,
    messages::grpc::health::v1::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    },
    target::Target,
};

const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_micros(500);

#[derive(clap::Args)]
pub struct Options {
    /// The server to run, behind `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub async fn run(target: &Target, options: Options) -> Result<String> {
    let began = Instant::now();
    let mut server = Command::new(&options.command[0])
        .args(&options.command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let millis = loop {
        if serving(target).await.unwrap_or(false) {
            break began.elapsed().as_secs_f64() * 1e3;
        }
        if let Some(status) = server.try_wait()? {
            return Err(format!("the server ended: {status}").into());
        }
        if began.elapsed() > PATIENCE {
            stop(&mut server).await?;
            return Err("the server does not serve".into());
        }
        tokio::time::sleep(PAUSE).await;
    };
    stop(&mut server).await?;
    Ok(format!("{{\"serving_ms\": {millis:.2}}}"))
}

async fn serving(target: &Target) -> Result<bool> {
    let connection = Connection::open(target).await?;
    let request = frame(&HealthCheckRequest { service: String::new() });
    let reply = connection.call("/grpc.health.v1.Health/Check", request, None).await?;
    let answer = HealthCheckResponse::decode(reply.message())?;
    Ok(reply.code == 0 && answer.status() == ServingStatus::Serving)
}

/// SIGTERM, so that the store is closed as it is in service.
async fn stop(server: &mut Child) -> Result<()> {
    let id = server.id().ok_or("the server has ended")?;
    Command::new("kill").arg(id.to_string()).status().await?;
    server.wait().await?;
    Ok(())
}
