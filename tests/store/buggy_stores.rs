//! Stores with a bug put in on purpose: whoever checks stores must find it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    fixtures::patch_of,
    forward::{Forward, Hooks},
};
use async_trait::async_trait;
use user_service::domain::{Change, Deadline, Error, Store, User, UserId, UserKey, Write, WriteResult};

/// How long a bug keeps its window open.
const BUG_WINDOW: Duration = Duration::from_millis(1);

enum Bug {
    EarlyAnswers,
    LostUpdates,
    /// What was read before, by id.
    StaleReads(Mutex<HashMap<UserId, Option<Arc<User>>>>),
}

struct Broken {
    inner: Arc<dyn Store>,
    bug: Bug,
}

/// Answers a write once it is known to be allowed, and makes it a little later.
pub fn early_answers(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Forward(Broken { inner, bug: Bug::EarlyAnswers }))
}

/// Updates by reading, changing and writing back the whole user.
pub fn lost_updates(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Forward(Broken { inner, bug: Bug::LostUpdates }))
}

/// Answers every second read of a user from a cache that no write clears.
pub fn stale_reads(inner: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Forward(Broken { inner, bug: Bug::StaleReads(Mutex::default()) }))
}

#[async_trait]
impl Hooks for Broken {
    fn store(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        let Bug::StaleReads(cache) = &self.bug else { return self.inner.get(key, deadline).await };
        let UserKey::Id(id) = key else { return self.inner.get(key, deadline).await };
        if let Some(user) = cache.lock().unwrap().remove(id) {
            return Ok(user);
        }
        let user = self.inner.get(key, deadline).await?;
        cache.lock().unwrap().insert(id.clone(), user.clone());
        Ok(user)
    }

    async fn write(&self, mut write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        match &self.bug {
            // A delete's revision is known only afterwards, so deletes are left alone.
            Bug::EarlyAnswers if !matches!(write.change, Change::Delete { .. }) => {
                let check = Write { validate_only: true, ..write.clone() };
                let answer = self.inner.write(check, deadline).await?;
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(BUG_WINDOW).await;
                    inner.write(write, deadline).await
                });
                let revision = answer.user.as_ref().map_or(answer.revision, |user| user.revision);
                Ok(WriteResult { revision, ..answer })
            }
            Bug::LostUpdates => {
                if let Change::Update { id, patch, .. } = &mut write.change
                    && let Some(User { fields, .. }) =
                        self.inner.get(&UserKey::Id(id.clone()), deadline).await?.map(Arc::unwrap_or_clone)
                {
                    *patch = patch_of(fields.patched(patch));
                    tokio::time::sleep(BUG_WINDOW).await;
                }
                self.inner.write(write, deadline).await
            }
            _ => self.inner.write(write, deadline).await,
        }
    }
}
