//! The bytes of an answer on their way to the socket.

use bytes::{Buf, Bytes};

use super::in_flight::OpenCall;
use crate::rpc::unread::COUNTED_BYTES;

/// A part of an answer, which keeps its call in flight until it has been sent.
#[derive(Debug, Default)]
pub struct Sending {
    bytes: Bytes,
    /// How much of it is counted as unread.
    counted: usize,
    /// `None` where it has no bytes.
    call: Option<OpenCall>,
}

impl Sending {
    pub fn new(bytes: Bytes, call: OpenCall) -> Self {
        let counted = if bytes.len() < COUNTED_BYTES { 0 } else { bytes.len() };
        if counted > 0 {
            call.unread().add(counted);
        }
        Self { bytes, counted, call: Some(call) }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.counted > 0
            && let Some(call) = &self.call
        {
            call.unread().remove(self.counted);
        }
    }
}

impl Buf for Sending {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        if self.counted > 0
            && let Some(call) = &self.call
        {
            call.unread().take(count);
        }
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.bytes.copy_to_bytes(len)
    }
}
