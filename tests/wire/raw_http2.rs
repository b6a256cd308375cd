//! A client that speaks HTTP/2 by hand, and so can do what no library would.

#![allow(dead_code, reason = "the constants are a set")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use crate::support::TEST_TIMEOUT;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// The last stream of a GOAWAY that refuses none yet.
pub const ALL_STREAMS: u32 = i32::MAX as u32;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The big-endian number at this place in the payload.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    fn ends_answer(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The last stream and the error code of a GOAWAY.
    pub fn goaway(&self) -> (u32, u32) {
        assert_eq!(self.kind, GOAWAY, "{self:?}");
        (self.number(0), self.number(4))
    }
}

pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// A peer that connects and says nothing.
    pub fn silent(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// The same on a slow line.
    pub fn lagging(addr: SocketAddr) -> Self {
        let mut peer = Self { stream: lagging_stream(addr) };
        peer.write(PREFACE);
        peer
    }

    /// A peer that has done its part of the handshake.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(Self::silent(addr).stream)
    }

    /// The same over a socket of one's own.
    pub fn over(stream: TcpStream) -> Self {
        let mut peer = Self { stream };
        peer.write(PREFACE);
        peer.send(SETTINGS, 0, 0, &[]);
        peer
    }

    /// Whether the server still takes what is written.
    pub fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload));
    }

    /// Begins a call that sends no message.
    pub fn call(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &head(path));
    }

    /// The next frame; `None` once the server has closed the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.read(9)?.try_into().unwrap();
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.read(len as usize)?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server says nothing"),
            Err(_) => None,
        }
    }

    /// The next frame of a kind, those before it let pass.
    pub fn wait_for(&mut self, kind: u8) -> Frame {
        let mut passed = Vec::new();
        while let Some(frame) = self.next() {
            if frame.kind == kind {
                return frame;
            }
            passed.push(frame);
        }
        panic!("closed without a frame of kind {kind}, after {passed:?}");
    }

    /// The frame that ends the answer to a call.
    pub fn wait_for_answer(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("closed before the answer on {stream}"));
            if frame.stream == stream && frame.ends_answer() {
                return frame;
            }
        }
    }

    /// This many answers, in whatever order they come.
    pub fn wait_for_answers(&mut self, count: usize) {
        let answers = std::iter::from_fn(|| self.next()).filter(Frame::ends_answer).take(count).count();
        assert_eq!(answers, count, "closed before the last");
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Says no more, and reads until the server has closed the connection too.
    pub fn finish(&mut self) {
        // It may have been closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.rest();
    }

    /// Answers a PING.
    pub fn pong(&mut self, ping: &Frame) {
        assert_eq!((ping.kind, ping.flags), (PING, 0));
        self.send(PING, ACK, 0, &ping.payload);
    }

    /// All that the server has sent by now: what comes before it answers a PING.
    pub fn so_far(&mut self) -> Vec<Frame> {
        let mark = b"so far??";
        self.send(PING, 0, 0, mark);
        let mut frames = Vec::new();
        while let Some(frame) = self.next() {
            if frame.kind == PING && frame.flags == ACK && frame.payload == mark {
                return frames;
            }
            frames.push(frame);
        }
        panic!("closed after {frames:?}");
    }
}

/// A connection whose kernel takes no more than 32 KiB that are not read.
pub fn lagging_stream(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 * 1_024).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.into()
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of a gRPC call, each field spelt out or from the static table.
pub fn head(path: &str) -> Vec<u8> {
    head_of(path, "application/grpc")
}

/// The same of any content type.
pub fn head_of(path: &str, content_type: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    // Literals under the names of the static table: :path, :authority, content-type.
    for (name, value) in [(&[4][..], path), (&[1], "test"), (&[0x0f, 0x10], content_type)] {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    block.extend(b"\x00\x02te\x08trailers");
    block
}
