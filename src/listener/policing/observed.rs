//! What the policing of a connection tells the owner of the connection, and the reverse.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
};

use super::{refusal::Refusal, violation::Violation};

/// The state of a connection, for its owner.
#[derive(Debug, Default)]
pub struct Observed {
    pub(super) handshake_done: AtomicBool,
    /// The index of a [`Violation`], and one more; 0 without any.
    violation: AtomicU8,
    /// The same of a [`Refusal`].
    refusal: AtomicU8,
    pub(super) last_stream: AtomicU32,
    /// Bytes have come since [`Observed::take_read`].
    pub(super) read: AtomicBool,
    /// The peer has taken nothing for too long.
    pub(super) gone: AtomicBool,
    /// The connection has a new turn to be read.
    pub(super) turn: AtomicBool,
    /// Every request of HTTP/1 that has come is answered.
    pub(super) answered: AtomicBool,
    /// A request of HTTP/1 waits for that.
    pub(super) waiting: AtomicBool,
    /// No request of HTTP/1 has begun and not ended, and no byte of one is held.
    pub(super) between: AtomicBool,
    /// Nothing more is to come of a connection of HTTP/1.
    pub(super) over: AtomicBool,
    /// The peer is told nothing: an answer of HTTP/1 has begun, or it does not speak HTTP.
    mute: AtomicBool,
}

impl Observed {
    /// To be called before each poll of the connection: the bytes read in one are bounded, so
    /// that calls and other connections have their turn.
    pub fn begin_turn(&self) {
        self.turn.store(true, Relaxed);
    }

    /// Whether the peer has sent anything since this was last asked.
    pub fn take_read(&self) -> bool {
        self.read.swap(false, Relaxed)
    }

    /// Whether the peer has taken nothing for too long.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    pub fn is_handshake_done(&self) -> bool {
        self.handshake_done.load(Relaxed)
    }

    /// Tells that all requests of HTTP/1 were answered, so that the next one may be read.
    pub fn set_answered(&self) {
        self.answered.store(true, Relaxed);
        self.waiting.store(false, Relaxed);
    }

    /// Whether a request of HTTP/1 waits for [`Self::set_answered`].
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// Whether a connection of HTTP/1 is between two requests.
    pub fn is_between(&self) -> bool {
        self.between.load(Relaxed)
    }

    /// Whether a connection of HTTP/1 has been ended, by its peer or for what it sent.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Whether it was for what it sent.
    pub fn is_refused(&self) -> bool {
        self.refusal.load(Relaxed) > 0
    }

    /// Why the connection was ended, if it was.
    pub fn violation(&self) -> Option<Violation> {
        let index = usize::from(self.violation.load(Relaxed)).checked_sub(1)?;
        Violation::all().get(index).copied()
    }

    /// What the peer is to be sent for it: a GOAWAY, or a response of HTTP/1 where that
    /// cannot be taken for a part of another.
    pub fn told(&self) -> Option<Vec<u8>> {
        if let Some(index) = usize::from(self.refusal.load(Relaxed)).checked_sub(1) {
            let is_mute = self.mute.load(Relaxed);
            return Refusal::ALL.get(index).filter(|_| !is_mute).map(|refusal| refusal.answer());
        }
        self.violation().map(|violation| violation.goaway(self.last_stream.load(Relaxed)))
    }

    pub(super) fn violated(&self, violation: Violation) -> io::Error {
        self.violation.store(code(violation.index()), Relaxed);
        io::Error::other("the frames of the connection are policed")
    }

    pub(super) fn refused(&self, refusal: Refusal, is_answering: bool) -> io::Error {
        self.over.store(true, Relaxed);
        // A peer that does not speak HTTP could take an answer for something else.
        self.mute.store(is_answering || refusal == Refusal::NotHttp, Relaxed);
        self.refusal.store(code(refusal as usize), Relaxed);
        match refusal.violation() {
            Some(violation) => self.violated(violation),
            None => io::Error::other("the request is refused"),
        }
    }
}

/// An index as it is kept next to 0 for none.
fn code(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap_or(u8::MAX)
}
