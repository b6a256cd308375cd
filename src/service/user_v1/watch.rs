//! A watch as a stream of messages.

use std::{pin::Pin, time::Duration};

use futures_util::stream::{self, Stream};
use tokio::time;
use tonic::Status;

use super::fields::message;
use crate::{
    domain::Event,
    feed::{Item, Watch, WatchError},
    proto::user::v1::{self as pb, watch_users_response::Event as WireEvent},
    rpc::{goaway::GoAwayReceiver, status},
    service::{convert::timestamp, error_status},
};

pub type WatchResponses = Pin<Box<dyn Stream<Item = Result<pb::WatchUsersResponse, Status>> + Send>>;

/// A watch that is being told.
pub struct WatchStream {
    pub watch: Watch,
    /// How long there may be silence.
    pub heartbeat: Duration,
    pub goaway: GoAwayReceiver,
}

impl WatchStream {
    /// The messages, and why they end.
    pub fn messages(self) -> WatchResponses {
        Box::pin(stream::unfold(Some(self), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(status) => {
                    let token = watching.watch.token().encode();
                    Some((Err(status::with_resume_token(&status, token)), None))
                }
            }
        }))
    }

    async fn next(&mut self) -> Result<pb::WatchUsersResponse, Status> {
        let next = tokio::select! {
            biased;
            reason = self.goaway.received() => {
                return Err(status::goaway(reason));
            }
            next = time::timeout(self.heartbeat, self.watch.next()) => next,
        };
        let event = match next {
            Ok(Ok(item)) => to_event(&item),
            Ok(Err(WatchError::TooSlow)) => return Err(status::watcher_too_slow()),
            Ok(Err(WatchError::Failed(error))) => return Err(error_status::from_error(error)),
            Err(_) => WireEvent::Heartbeat(pb::Heartbeat {}),
        };
        Ok(pb::WatchUsersResponse { resume_token: self.watch.token().encode(), event: Some(event) })
    }
}

fn to_event(item: &Item) -> WireEvent {
    match item {
        Item::Existing(user) => WireEvent::Existing(message(user)),
        Item::CaughtUp => WireEvent::CaughtUp(pb::CaughtUp {}),
        Item::Change(entry) => match &entry.event {
            Event::Created(user) => WireEvent::Created(message(user)),
            Event::Updated(user) => WireEvent::Updated(message(user)),
            Event::Deleted(id) => WireEvent::Deleted(pb::DeletedUser {
                id: id.as_str().into(),
                delete_time: Some(timestamp(entry.position.time)),
            }),
        },
    }
}
