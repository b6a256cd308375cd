//! A watch as a stream of messages.

use std::{pin::Pin, time::Duration};

use futures_util::stream::{self, Stream};
use tokio::time;
use tonic::Status;

use super::message;
use crate::{
    domain::Event,
    feed::{End, Item, Watch},
    proto::user::v1::{self as pb, watch_users_response::Event as Said},
    service::{
        leaving::{Farewell, Leaving},
        status,
        users::timestamp,
    },
};

pub type Messages = Pin<Box<dyn Stream<Item = Result<pb::WatchUsersResponse, Status>> + Send>>;

/// A watch that is being told.
pub struct Telling {
    pub watch: Watch,
    /// How long there may be silence.
    pub heartbeat: Duration,
    pub leaving: Leaving,
}

impl Telling {
    /// The messages, and why they end.
    pub fn messages(self) -> Messages {
        Box::pin(stream::unfold(Some(self), |telling| async {
            let mut telling = telling?;
            match telling.next().await {
                Ok(message) => Some((Ok(message), Some(telling))),
                Err(status) => {
                    let token = telling.watch.token().encode();
                    Some((Err(status::with_resume_token(&status, token)), None))
                }
            }
        }))
    }

    async fn next(&mut self) -> Result<pb::WatchUsersResponse, Status> {
        let next = tokio::select! {
            biased;
            farewell = self.leaving.asked() => {
                return Err(match farewell {
                    Farewell::Age => status::connection_aged(),
                    Farewell::Drain => status::draining(),
                });
            }
            next = time::timeout(self.heartbeat, self.watch.next()) => next,
        };
        let said = match next {
            Ok(Ok(item)) => said(&item),
            Ok(Err(End::TooSlow)) => return Err(status::watcher_too_slow()),
            Ok(Err(End::Failed(error))) => return Err(status::status(error)),
            Err(_) => Said::Heartbeat(pb::Heartbeat {}),
        };
        Ok(pb::WatchUsersResponse { resume_token: self.watch.token().encode(), event: Some(said) })
    }
}

fn said(item: &Item) -> Said {
    match item {
        Item::Existing(user) => Said::Existing(message(user)),
        Item::CaughtUp => Said::CaughtUp(pb::CaughtUp {}),
        Item::Happened(entry) => match &entry.event {
            Event::Created(user) => Said::Created(message(user)),
            Event::Updated(user) => Said::Updated(message(user)),
            Event::Deleted(id) => Said::Deleted(pb::DeletedUser {
                id: id.as_str().into(),
                delete_time: Some(timestamp(entry.point.time)),
            }),
        },
    }
}
