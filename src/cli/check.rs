//! `check`: asks a server for its health and ends as `grpc_health_probe` does.

use std::{error::Error, process::ExitCode, time::Duration};

use tonic::{Status, transport};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::{client, console, target::Target};
use crate::util::error_chain::ErrorChain;

const NOT_CONNECTED: u8 = 2;
const CALL_FAILED: u8 = 3;
const NOT_SERVING: u8 = 4;

/// What to ask, and how long to wait.
#[derive(Debug)]
pub struct Check {
    pub target: Target,
    /// Empty: the server as a whole.
    pub service: String,
    pub connect_timeout: Duration,
    pub timeout: Duration,
}

impl Check {
    pub async fn run(self) -> ExitCode {
        match self.ask().await {
            Ok(ServingStatus::Serving) => {
                console::say("SERVING");
                ExitCode::SUCCESS
            }
            Ok(status) => {
                console::say(status.as_str_name());
                ExitCode::from(NOT_SERVING)
            }
            Err((code, why)) => {
                eprintln!("check: {}: {why}", self.target.addr);
                ExitCode::from(code)
            }
        }
    }

    async fn ask(&self) -> Result<ServingStatus, (u8, String)> {
        let channel = client::connect(&self.target, self.connect_timeout)
            .await
            .map_err(|why| (NOT_CONNECTED, format!("could not connect: {why}")))?;
        let request = HealthCheckRequest { service: self.service.clone() };
        let mut health = HealthClient::new(channel);
        match tokio::time::timeout(self.timeout, health.check(request)).await {
            Ok(Ok(response)) => Ok(HealthCheckResponse::status(response.get_ref())),
            Ok(Err(status)) => Err(failed(&status)),
            Err(_) => Err((CALL_FAILED, format!("no answer within {} ms", self.timeout.as_millis()))),
        }
    }
}

/// A status that the server sent is a failed call. One that the client made up
/// because the connection broke means: not connected.
fn failed(status: &Status) -> (u8, String) {
    match status.source() {
        Some(error) if error.is::<transport::Error>() => {
            (NOT_CONNECTED, format!("could not connect: {}", ErrorChain(error)))
        }
        _ => (CALL_FAILED, format!("the call failed: {}", console::describe(status))),
    }
}
