//! One step of one handshake in each turn of a serving thread's event loop.
//!
//! A step of a handshake takes up to a millisecond of CPU, as long as a hundred calls. A
//! thousand handshakes that arrive together would otherwise all run before the next call.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    sync::{Notify, Semaphore},
    task::yield_now,
};

/// The turns of one serving thread, given in the order in which they were asked for.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Runs a future to its end. Each of its steps waits for a turn, and a turn ends when
    /// the event loop has served everything else that was ready.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let woken = Arc::new(Woken(Notify::new()));
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let turn = self.0.acquire().await;
            let step = future.as_mut().poll(&mut Context::from_waker(&waker));
            yield_now().await;
            drop(turn);
            if let Poll::Ready(output) = step {
                return output;
            }
            woken.0.notified().await;
        }
    }
}

/// Notes a wake until it is waited for.
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::poll_fn, rc::Rc};

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// What ran, in order: each handshake has `steps` steps that are ready immediately,
    /// and a call records each time that the event loop comes to it.
    async fn trace(handshakes: usize, steps: usize) -> Vec<&'static str> {
        let turns = Rc::new(Turns::default());
        let trace: Rc<RefCell<Vec<_>>> = Rc::default();
        let tasks: Vec<_> = (0..handshakes)
            .map(|_| {
                let (turns, trace, mut left) = (Rc::clone(&turns), Rc::clone(&trace), steps);
                spawn_local(async move {
                    let step = poll_fn(move |cx| {
                        trace.borrow_mut().push("step");
                        left -= 1;
                        if left == 0 {
                            return Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    });
                    turns.run(step).await;
                })
            })
            .collect();
        let calls = spawn_local({
            let trace = Rc::clone(&trace);
            async move {
                loop {
                    trace.borrow_mut().push("call");
                    yield_now().await;
                }
            }
        });
        for task in tasks {
            task.await.unwrap();
        }
        calls.abort();
        trace.take()
    }

    #[tokio::test]
    async fn calls_run_between_any_two_steps_of_handshakes() {
        let ran = LocalSet::new().run_until(trace(50, 3)).await;
        assert_eq!(ran.iter().filter(|what| **what == "step").count(), 150);
        let longest = ran.split(|what| *what == "call").map(<[_]>::len).max();
        assert_eq!(longest, Some(1), "{ran:?}");
    }

    #[tokio::test]
    async fn a_handshake_that_waits_for_its_peer_takes_no_turn() {
        let turns = Turns::default();
        let (peer, arrived) = tokio::sync::oneshot::channel::<()>();
        let mut silent = pin!(turns.run(arrived));
        assert!(futures_util::poll!(silent.as_mut()).is_pending());
        yield_now().await;
        assert!(futures_util::poll!(silent.as_mut()).is_pending());
        assert_eq!(turns.run(async { 7 }).await, 7);
        peer.send(()).unwrap();
        assert_eq!(silent.await, Ok(()));
    }
}
