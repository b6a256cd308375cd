//! What the API services share: how a call reaches the store.

use std::sync::{Arc, OnceLock};

use tonic::Status;

use super::error_status;
use crate::{
    domain::{Change, Deadline, Error, Store, User, UserKey, Write, WriteResult},
    feed::Feed,
    rpc::status,
};

/// Where the store will be: health is served before the store is open.
#[derive(Clone, Default)]
pub struct StoreSlot(Arc<OnceLock<(Arc<dyn Store>, Feed)>>);

impl StoreSlot {
    /// Puts the store in, and the feed of its changes. Only the first ones count.
    pub fn open(&self, store: Arc<dyn Store>, feed: Feed) {
        let _ = self.0.set((store, feed));
    }

    /// The store, or UNAVAILABLE while there is none.
    pub fn get(&self) -> Result<&Arc<dyn Store>, Status> {
        self.0.get().map(|(store, _)| store).ok_or_else(status::starting)
    }

    /// The feed, or UNAVAILABLE while there is none.
    pub fn feed(&self) -> Result<&Feed, Status> {
        self.0.get().map(|(_, feed)| feed).ok_or_else(status::starting)
    }
}

/// The store, once it is open, with its errors as statuses.
#[derive(Clone)]
pub struct StoreHandle(StoreSlot);

impl StoreHandle {
    pub fn new(slot: StoreSlot) -> Self {
        Self(slot)
    }

    pub fn store(&self) -> Result<&Arc<dyn Store>, Status> {
        self.0.get()
    }

    pub fn feed(&self) -> Result<&Feed, Status> {
        self.0.feed()
    }

    /// The user with this key, immediately if it is cached.
    pub async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Status> {
        let store = self.store()?;
        if let UserKey::Id(id) = key
            && let Some(user) = store.get_cached(id)
        {
            return Ok(Some(user));
        }
        store.get(key, deadline).await.map_err(error_status::from_error)
    }

    /// Writes, and answers with the user that the write left, if it left one.
    /// `id` is the id that the caller sent, for the error to name.
    pub async fn write(&self, write: Write, id: &str, deadline: Deadline) -> Result<Option<User>, Status> {
        let named = write.idempotency.is_some();
        match self.store()?.write(write, deadline).await {
            Ok(WriteResult { user, .. }) => Ok(user),
            Err(Error::OutcomeUnknown) if named => Err(error_status::safe_to_repeat()),
            Err(error) => Err(error_status::for_user(error, id)),
        }
    }

    /// Writes a change that leaves a user.
    pub async fn save(&self, write: Write, id: &str, deadline: Deadline) -> Result<User, Status> {
        debug_assert!(!matches!(write.change, Change::Delete { .. }), "a delete leaves no user");
        // None is left where this repeats a write of a user that is gone by now.
        let user = self.write(write, id, deadline).await?;
        user.ok_or_else(|| error_status::for_user(Error::NotFound(crate::domain::UniqueKey::Id), id))
    }
}
