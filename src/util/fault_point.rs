//! Points at which a test has the code panic.
//!
//! **Invariant:** a build without tests holds none of them: there the function is empty.

/// Panics where a test has armed this thread for this step; see [`testing`].
#[inline]
pub fn fault_point() {
    #[cfg(test)]
    testing::step();
}

/// What arms the points of a thread.
#[cfg(test)]
pub mod testing {
    use std::{
        cell::Cell,
        pin::pin,
        task::{Context, Poll},
    };

    thread_local! {
        /// How many steps are left until the one that panics; 0 where none does.
        static LEFT: Cell<usize> = const { Cell::new(0) };
    }

    /// Has the `nth` step from now on panic, the first one being 1.
    pub fn arm(nth: usize) {
        LEFT.set(nth);
    }

    /// Whether the step was not reached. None panics from now on.
    pub fn disarm() -> bool {
        LEFT.replace(0) > 0
    }

    pub fn step() {
        match LEFT.get() {
            0 => {}
            left => {
                LEFT.set(left - 1);
                assert!(left > 1, "a fault point that is armed");
            }
        }
    }

    /// Makes each poll of a future a step, so that it may panic wherever it waits.
    pub async fn at_each_await<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context: &mut Context<'_>| -> Poll<F::Output> {
            step();
            future.as_mut().poll(context)
        })
        .await
    }
}
