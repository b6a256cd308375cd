//! `smoke`: tries a deployment with a temporary user, and deletes that user again,
//! also when a step fails or a signal interrupts it.

mod steps;

use std::{future::Future, pin::pin, process::ExitCode, time::Duration};

use self::steps::Steps;
use super::{
    client::{self, Connection},
    console,
    retry::{CallError, Retry},
    target::Target,
};
use crate::signals::Signals;

/// What to try, and how patiently.
#[derive(Debug)]
pub struct Smoke {
    pub target: Target,
    /// For each step.
    pub timeout: Duration,
}

/// What a step found out, or why it failed.
type StepResult = Result<String, String>;

/// A step failed, and has said so.
struct Failed;

impl Smoke {
    pub async fn run(self) -> ExitCode {
        let mut steps = match self.connect().await {
            Ok(channel) => Steps::new(channel),
            Err(why) => {
                console::say(format_args!("FAILED  connect: {why}"));
                return ExitCode::FAILURE;
            }
        };
        // Without them a signal ends the process immediately, as without a handler.
        let mut signals = Signals::catch().ok();
        let mut is_interrupted = false;
        let done = tokio::select! {
            done = self.all(&mut steps) => done,
            () = interrupted(&mut signals) => {
                console::say(format_args!("FAILED  interrupted"));
                is_interrupted = true;
                Err(Failed)
            }
        };
        if done.is_ok() {
            return ExitCode::SUCCESS;
        }
        // Even where the answer to the create was lost, the user may be there.
        if steps.may_have_created() {
            // Its tries end before the step does, so that it can say who is left.
            let tries = self.timeout * 9 / 10;
            let mut clean_up = pin!(self.step("clean up", steps.clean_up(tries)));
            loop {
                tokio::select! {
                    _ = &mut clean_up => break,
                    // One signal is for the steps, and a second one for this.
                    () = interrupted(&mut signals) => if is_interrupted {
                        console::say(format_args!("FAILED  clean up: interrupted"));
                        break;
                    } else {
                        is_interrupted = true;
                    },
                }
            }
        }
        ExitCode::FAILURE
    }

    /// Tries for as long as a step may take: right after an installation the name of a
    /// Service may lead nowhere yet.
    async fn connect(&self) -> Result<Connection, String> {
        let mut retry = Retry::new(self.timeout);
        loop {
            match client::connect(&self.target, self.timeout).await {
                Ok(channel) => return Ok(channel),
                Err(why) => retry.pause(CallError::Retryable(why)).await?,
            }
        }
    }

    async fn all(&self, steps: &mut Steps) -> Result<(), Failed> {
        self.step("health", steps.health()).await?;
        self.step("reflection", steps.reflection()).await?;
        self.step("create", steps.create()).await?;
        self.step("get by id", steps.get_by_id()).await?;
        self.step("get by email", steps.get_by_email()).await?;
        self.step("batch get", steps.batch_get()).await?;
        self.step("list", steps.list()).await?;
        self.step("update", steps.update()).await?;
        self.step("stale etag", steps.stale_etag()).await?;
        self.step("article", steps.article()).await?;
        self.step("delete", steps.delete()).await?;
        self.step("gone", steps.gone()).await
    }

    /// Takes a step and prints how it went.
    async fn step(&self, name: &str, step: impl Future<Output = StepResult>) -> Result<(), Failed> {
        let outcome = tokio::time::timeout(self.timeout, step)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", self.timeout.as_millis())));
        match outcome {
            Ok(found) => {
                console::say(format_args!("ok      {name}: {found}"));
                Ok(())
            }
            Err(why) => {
                console::say(format_args!("FAILED  {name}: {why}"));
                Err(Failed)
            }
        }
    }
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted(signals: &mut Option<Signals>) {
    match signals {
        Some(signals) => drop(signals.next().await),
        None => std::future::pending().await,
    }
}
