//! The loop of a durable store's one writer.
//!
//! It takes the queued writes as batches, lingers for callers that it has just answered
//! ([`Linger`]), and leaves time for maintenance.
//!
//! A panic costs the batch that it happened in: its callers are told that the outcome is
//! unknown, and the next batch is written.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{sync::watch, time::timeout_at};

use super::{
    linger::Linger,
    metrics::writer_panics,
    queue::{PendingWrite, WriteReceiver},
};
use crate::{
    domain::{Revision, Timestamp},
    util::fault_point::fault_point,
};

/// How often old rows are looked for.
pub(super) const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

/// What the loop asks of a store.
pub(super) trait BatchWriter {
    /// Makes one transaction of a batch, and answers it only when that is durable.
    fn write(&mut self, batch: Vec<PendingWrite>) -> impl Future<Output = ()> + Send;

    /// Makes the writer fit for the next batch after a panic, which may have left the last one
    /// half done.
    fn recover(&mut self);

    /// When [`Self::maintain`] has something to do at the latest.
    fn maintenance_due(&self) -> Instant;

    /// Does the maintenance that is due.
    fn maintain(&mut self, receiver: &WriteReceiver) -> impl Future<Output = ()> + Send;
}

/// Works until the queue is closed and everything in it is done.
pub(super) async fn run(receiver: &WriteReceiver, writer: &mut impl BatchWriter) {
    writer_panics().increment(0);
    let mut linger = Linger::none();
    loop {
        if timeout_at(writer.maintenance_due().into(), receiver.wait_for(1)).await.is_ok() {
            let _ = timeout_at(linger.until.into(), receiver.wait_for(linger.target)).await;
        }
        let Some(batch) = receiver.take() else { return };
        let (began, size) = (Instant::now(), batch.len());
        if size > 0 {
            write(writer, batch).await;
            receiver.committed();
            linger = Linger::after(size, receiver.len(), began, receiver.batch_limit());
        }
        if AssertUnwindSafe(writer.maintain(receiver)).catch_unwind().await.is_err() {
            writer_panics().increment(1);
            tracing::error!("the store's writer panicked between two batches; it goes on");
            writer.recover();
        }
    }
}

/// Writes a batch. Where the writer panics, the requests are dropped, which tells their callers
/// that the outcome is unknown.
pub(super) async fn write(writer: &mut impl BatchWriter, batch: Vec<PendingWrite>) {
    if AssertUnwindSafe(writer.write(batch)).catch_unwind().await.is_err() {
        writer_panics().increment(1);
        tracing::error!("the store's writer panicked: what became of its batch is unknown; it goes on");
        writer.recover();
    }
}

/// Tells watches of a revision, unless they were told of a newer one.
pub(super) fn publish(newest: &watch::Sender<Revision>, revision: Revision) {
    fault_point();
    newest.send_if_modified(|newest| {
        let is_newer = revision > *newest;
        *newest = revision.max(*newest);
        is_newer
    });
}

/// The time before which rows are older than `retention`, in microseconds.
pub(super) fn cutoff_micros(retention: Duration) -> i64 {
    Timestamp::now().before(retention).as_micros()
}
