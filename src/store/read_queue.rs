//! Larger reads: how many run concurrently, and which of the others wait.
//!
//! **Invariant:** a read waits only if, by the [`ReadForecast`], it will have ended before
//! its deadline. A read whose caller is gone, or which would miss its deadline, is not begun.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    CLOSED,
    forecast::Refusal,
    metrics::{GaugeGuard, ReadMetrics, ReadQueueMetrics, count},
    read_forecast::{ReadClass, ReadForecast, Running, Waiting},
};
use crate::domain::{Deadline, Error};

pub(super) struct ReadQueue {
    slots: Arc<Semaphore>,
    forecast: Mutex<ReadForecast>,
    /// No more calls than these can wait.
    max_calls: usize,
    metrics: ReadQueueMetrics,
    reads: Arc<ReadMetrics>,
}

/// The right to run one read, until this is dropped.
pub(super) struct Turn {
    queue: Arc<ReadQueue>,
    running: Option<Running>,
    succeeded: bool,
    _slot: OwnedSemaphorePermit,
    _counted: GaugeGuard,
}

impl ReadQueue {
    /// A queue in front of so many reads that run concurrently.
    pub fn new(slots: usize, max_calls: usize, reads: Arc<ReadMetrics>) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(slots)),
            forecast: Mutex::new(ReadForecast::new(slots)),
            max_calls,
            metrics: ReadQueueMetrics::new(max_calls),
            reads,
        })
    }

    /// Waits for the turn of a read. A caller that drops this no longer waits.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where the read could not end in time.
    pub async fn turn(self: &Arc<Self>, class: ReadClass, deadline: Deadline) -> Result<Turn, Error> {
        let place = self.enter(class, deadline)?;
        let counted = self.reads.queued();
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| CLOSED)?;
        drop(counted);
        let running = Some(self.begin(place, deadline)?);
        let (queue, counted) = (Arc::clone(self), self.reads.in_flight());
        Ok(Turn { queue, running, succeeded: false, _slot: slot, _counted: counted })
    }

    fn enter(&self, class: ReadClass, deadline: Deadline) -> Result<Place<'_>, Error> {
        let mut forecast = self.forecast();
        let now = Instant::now();
        let refused = match forecast.admit(class, deadline.remaining(), now) {
            Ok(waiting) => return Ok(Place { queue: self, waiting: Some(waiting) }),
            Err(Refusal::Wait) => &self.metrics.refused_wait,
            Err(Refusal::Deadline) => &self.metrics.refused_deadline,
        };
        refused.increment(1);
        Err(Error::Overloaded { retry_delay: forecast.refuse(now) })
    }

    /// Begins a read that has waited, unless it has become late.
    fn begin(&self, mut place: Place, deadline: Deadline) -> Result<Running, Error> {
        if deadline.is_over() {
            return Err(Error::DeadlineExceeded);
        }
        let mut forecast = self.forecast();
        let (now, left) = (Instant::now(), deadline.remaining());
        if let Some(waiting) = place.waiting.take_if(|waiting| forecast.ends_within(waiting, left)) {
            return Ok(forecast.begin(&waiting, now));
        }
        self.metrics.refused_expired.increment(1);
        Err(Error::Overloaded { retry_delay: forecast.refuse(now) })
    }

    fn forecast(&self) -> MutexGuard<'_, ReadForecast> {
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a read that waits, until it begins or this is dropped.
struct Place<'a> {
    queue: &'a ReadQueue,
    waiting: Option<Waiting>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.queue.forecast().give_up(&waiting);
        }
    }
}

impl Turn {
    /// Ends it with what the read brought.
    pub fn end<T>(mut self, read: Result<T, Error>) -> Result<T, Error> {
        self.succeeded = read.is_ok();
        read
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        let mut forecast = self.queue.forecast();
        forecast.end(&running, self.succeeded, Instant::now());
        let (mean, limit) = (forecast.mean(), forecast.waiting_limit().min(self.queue.max_calls));
        drop(forecast);
        self.queue.metrics.read_time.set(mean.as_secs_f64());
        self.queue.metrics.waiting_limit.set(count(limit));
    }
}

#[cfg(test)]
mod tests;
