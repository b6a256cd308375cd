//! Finds peers that are gone without a word, by PING.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::super::policing::Observed;

/// The keepalive of one connection.
pub struct Keepalive {
    interval: Duration,
    timeout: Duration,
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Keepalive {
    /// Of a connection that is silent from now on.
    pub fn new(interval: Duration, timeout: Duration, pings: PingPong) -> Self {
        Self { interval, timeout, pings, timer: Box::pin(sleep(interval)), is_waiting: false }
    }

    /// Ready once the peer has not answered a PING in time.
    ///
    /// A peer that has sent anything since the last look is left alone until the next one, so
    /// that reading needs no clock. So a PING comes after one interval of silence or two.
    pub fn poll(&mut self, cx: &mut Context<'_>, observed: &Observed) -> Poll<()> {
        loop {
            if self.is_waiting && self.pings.poll_pong(cx).is_ready() {
                self.is_waiting = false;
                // The answer ends the silence. It is no reason to look away for an interval more.
                observed.take_read();
                self.sleep(self.interval);
                continue;
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting {
                return Poll::Ready(());
            }
            if observed.take_read() {
                self.sleep(self.interval);
                continue;
            }
            // It fails where the connection has ended, which h2 tells.
            self.is_waiting = self.pings.send_ping(Ping::opaque()).is_ok();
            self.sleep(self.timeout);
        }
    }

    fn sleep(&mut self, duration: Duration) {
        self.timer.as_mut().reset(Instant::now() + duration);
    }
}
