//! A store that passes every operation on to another, and differs in what its hooks say.

use std::sync::Arc;

use async_trait::async_trait;

use super::domain::{
    Deadline, Entry, Error, LogHead, Page, PageSize, Revision, Store, StoreHealth, User, UserId, UserKey,
    Write, WriteResult,
};

/// What a store does otherwise than the one behind it.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// The store behind it, for the next operation.
    fn store(&self) -> &Arc<dyn Store>;

    /// Comes before each operation, and may fail it.
    fn begin(&self, _: Deadline) -> Result<(), Error> {
        Ok(())
    }

    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        self.store().get(key, deadline).await
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        self.store().list(after, size, deadline).await
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        self.store().write(write, deadline).await
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.store().changes(after, limit, deadline).await
    }

    async fn close(&self) {
        self.store().close().await;
    }
}

pub struct Forward<H>(pub H);

#[async_trait]
impl<H: Hooks> Store for Forward<H> {
    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        self.0.begin(deadline)?;
        self.0.get(key, deadline).await
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        self.0.begin(deadline)?;
        self.0.store().batch_get(ids, deadline).await
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        self.0.begin(deadline)?;
        self.0.list(after, size, deadline).await
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        self.0.begin(deadline)?;
        self.0.write(write, deadline).await
    }

    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error> {
        self.0.begin(deadline)?;
        self.0.store().log_head(deadline).await
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.0.begin(deadline)?;
        self.0.changes(after, limit, deadline).await
    }

    async fn changed(&self, after: Revision) {
        self.0.store().changed(after).await;
    }

    async fn probe(&self) -> StoreHealth {
        self.0.store().probe().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
