use std::time::Duration;

use tokio::runtime::Builder;

use super::*;
use crate::{store::read_forecast::ReadKind, telemetry::testing::recorded};

fn class() -> ReadClass {
    ReadClass::new(ReadKind::Page, 1_000)
}

fn queue(slots: usize) -> Arc<ReadQueue> {
    ReadQueue::new(slots, 2_048, Arc::new(ReadMetrics::new()))
}

/// A deadline so far away that it is never reached in a test.
fn in_an_hour() -> Deadline {
    Deadline::at(Instant::now() + Duration::from_hours(1))
}

/// Has the queue expect that a read takes days.
fn with_slow_reads(queue: &ReadQueue) {
    let (mut forecast, now) = (queue.forecast(), Instant::now());
    let waiting = forecast.admit(class(), None, now).unwrap();
    let running = forecast.begin(&waiting, now);
    forecast.end(&running, true, now + Duration::from_hours(100));
}

/// The metrics that `test` leaves behind.
fn metrics_of<F: Future<Output = ()>>(test: impl FnOnce() -> F) -> Vec<String> {
    recorded(|| Builder::new_current_thread().build().unwrap().block_on(test()))
}

fn refused(lines: &[String], reason: &str) -> bool {
    let line = format!("user_service_store_reads_refused_total{{reason=\"{reason}\"}} 1");
    lines.contains(&line)
}

#[test]
fn so_many_run_and_the_next_one_waits() {
    let lines = metrics_of(|| async {
        let queue = queue(2);
        let first = queue.turn(class(), Deadline::NONE).await.unwrap();
        let _second = queue.turn(class(), Deadline::NONE).await.unwrap();
        let next = Arc::clone(&queue);
        let third = tokio::spawn(async move { next.turn(class(), Deadline::NONE).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        first.end(Ok(())).unwrap();
        third.await.unwrap().unwrap();
    });
    assert!(!lines.iter().any(|line| line.contains("reads_refused")), "{lines:?}");
}

#[test]
fn a_read_that_would_be_late_is_refused_immediately() {
    let lines = metrics_of(|| async {
        let queue = queue(2);
        with_slow_reads(&queue);
        let _alone = queue.turn(class(), in_an_hour()).await.unwrap();
        let refused = queue.turn(class(), in_an_hour()).await.err();
        assert!(matches!(refused, Some(Error::Overloaded { retry_delay }) if !retry_delay.is_zero()));
    });
    assert!(refused(&lines, "deadline"), "{lines:?}");
}

#[test]
fn a_read_whose_caller_is_gone_leaves_its_place() {
    let lines = metrics_of(|| async {
        let queue = queue(1);
        with_slow_reads(&queue);
        let running = queue.turn(class(), Deadline::NONE).await.unwrap();
        for _ in 0..100 {
            let next = Arc::clone(&queue);
            let waiting = tokio::spawn(async move { next.turn(class(), Deadline::NONE).await.map(drop) });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "it is not refused: nothing waits");
            waiting.abort();
            assert!(waiting.await.unwrap_err().is_cancelled());
        }
        drop(running);
        queue.turn(class(), in_an_hour()).await.unwrap().end(Ok(())).unwrap();
    });
    assert!(!lines.iter().any(|line| line.contains("reads{")), "none waits, none runs: {lines:?}");
}

#[test]
fn a_read_that_has_become_late_is_not_begun() {
    let lines = metrics_of(|| async {
        let queue = queue(1);
        let running = queue.turn(class(), Deadline::NONE).await.unwrap();
        let wait = |deadline| {
            let next = Arc::clone(&queue);
            tokio::spawn(async move { next.turn(class(), deadline).await.map(drop) })
        };
        let over = wait(Deadline::at(Instant::now() + Duration::from_millis(20)));
        let (late, in_time) = (wait(in_an_hour()), wait(Deadline::NONE));
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(20));
        with_slow_reads(&queue);
        drop(running);
        assert!(matches!(over.await.unwrap(), Err(Error::DeadlineExceeded)));
        assert!(matches!(late.await.unwrap(), Err(Error::Overloaded { .. })));
        in_time.await.unwrap().unwrap();
    });
    assert!(refused(&lines, "expired"), "{lines:?}");
}

#[test]
fn what_reads_take_and_how_many_may_wait_is_shown() {
    let lines = metrics_of(|| async {
        let queue = queue(2);
        assert_eq!(queue.max_calls, 2_048);
        with_slow_reads(&queue);
        queue.turn(class(), Deadline::NONE).await.unwrap().end(Ok(())).unwrap();
    });
    let value = |name: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<f64>().unwrap()
    };
    assert!(value("user_service_store_read_seconds") > 3_600.0);
    assert!(value("user_service_store_read_queue_limit") < 4.0, "one for each slot, and one more");
}
