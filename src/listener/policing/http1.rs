//! What of the bytes of an HTTP/1 connection hyper is shown, and when.
//!
//! hyper reads ahead, and would keep the begin of the next request while it answers one.
//! Here it gets the bytes of one request, and those of the next one only once the answer is
//! written. So pipelined requests are served one after the other, a refusal is never taken
//! for the answer to an earlier request, and a head that crawls is told from an idle
//! connection.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    budget::FrameBudget,
    message_walker::{MessageWalker, is_text},
    refusal::Refusal,
};

/// Bytes read of a request before hyper reads it. Most heads are smaller.
const FIRST_READ_BYTES: usize = 2 * 1_024;

/// How long a part of the first line may be that hyper is not shown.
const MOST_OF_A_LINE_BYTES: usize = 2 * 1_024;

/// An HTTP/1 connection's place in its messages.
#[derive(Debug)]
pub struct Http1 {
    pub walker: MessageWalker,
    /// Bytes that were read and are still to be shown.
    held: Bytes,
    /// A whole request was shown, and is not known to be answered.
    pub awaits_answer: bool,
    /// Some of an answer was written since the present request began.
    pub is_answering: bool,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// So many may be shown, and whether the peer owed nothing at any time.
    Bytes { count: usize, rested: bool },
    /// The next request has to wait for the answer.
    Later,
}

impl Http1 {
    /// Of a connection of which these bytes were read.
    pub fn new(max_head_bytes: usize, read: &[u8]) -> Self {
        Self {
            walker: MessageWalker::new(max_head_bytes),
            held: Bytes::copy_from_slice(read),
            awaits_answer: false,
            is_answering: false,
        }
    }

    /// Reads some bytes and keeps them. `false` at the connection's end.
    pub fn poll_hold(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut bytes = [MaybeUninit::uninit(); FIRST_READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(io).poll_read(cx, &mut buf))?;
        self.hold(buf.filled());
        Poll::Ready(Ok(!buf.filled().is_empty()))
    }

    /// Keeps bytes that were read.
    fn hold(&mut self, read: &[u8]) {
        self.held = if self.held.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            [&self.held, read].concat().into()
        };
    }

    /// Whether the held bytes have a whole line, or will not have one that matters.
    pub fn holds_a_line(&self) -> bool {
        let is_text = self.held.first().is_none_or(|byte| is_text(*byte));
        !is_text || self.held.contains(&b'\n') || self.held.len() >= MOST_OF_A_LINE_BYTES
    }

    pub fn holds(&self) -> bool {
        self.held.has_remaining()
    }

    /// Judges the held bytes, and returns those that may be shown, `most` of them.
    pub fn release(
        &mut self,
        most: usize,
        budget: &mut FrameBudget,
    ) -> Result<Option<(Bytes, bool)>, Refusal> {
        let held = self.held.clone();
        match self.judge(&held[..most.min(held.len())], budget)? {
            Shown::Later => Ok(None),
            Shown::Bytes { count, rested } => Ok(Some((self.held.split_to(count), rested))),
        }
    }

    /// Judges bytes that were read, and keeps those to be shown later.
    pub fn receive(&mut self, read: &[u8], budget: &mut FrameBudget) -> Result<Shown, Refusal> {
        let shown = self.judge(read, budget)?;
        let count = if let Shown::Bytes { count, .. } = shown { count } else { 0 };
        if count < read.len() {
            self.hold(&read[count..]);
        }
        Ok(shown)
    }

    fn judge(&mut self, bytes: &[u8], budget: &mut FrameBudget) -> Result<Shown, Refusal> {
        if self.walker.is_between() {
            if self.awaits_answer {
                return Ok(Shown::Later);
            }
            self.is_answering = false;
        }
        let walked = self.walker.walk(bytes, budget)?;
        self.awaits_answer = walked.ended;
        Ok(Shown::Bytes { count: walked.taken, rested: walked.rested })
    }
}
