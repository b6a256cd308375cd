//! A client that speaks HTTP/1 by hand, and so can do what no library would.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::support::TEST_TIMEOUT;

/// A response: its status, its head in lower case, and its body without chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn says_close(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

/// A connection: over TCP, or over what is put on top of it.
pub struct Client<T = TcpStream> {
    stream: T,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// What writes to the connection while this reads from it.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Whether this text is among what has come, as far as it has come by now.
    pub fn has_read(&mut self, text: &str) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut part = [0; 4_096];
        while let Ok(len @ 1..) = self.stream.read(&mut part) {
            self.read.extend(&part[..len]);
        }
        self.stream.set_nonblocking(false).unwrap();
        String::from_utf8_lossy(&self.read).contains(text)
    }

    /// The connection alone.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl<T: Read + Write> Client<T> {
    pub fn over(stream: T) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Whether the server still takes what is written.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Asks for a path, without a body.
    pub fn get(&mut self, path: &str) {
        self.write(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    }

    /// The next response; `None` once the server has closed the connection.
    pub fn try_response(&mut self) -> Option<Response> {
        let head = self.up_to(b"\r\n\r\n")?.to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        if status == 100 {
            return Some(response);
        }
        if response.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(self.up_to(b"\r\n")?.trim(), 16).unwrap();
                let chunk = self.exactly(size + 2)?;
                response.body += &chunk[..size];
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = response.field("content-length") {
            response.body = self.exactly(length.parse().unwrap())?;
        }
        Some(response)
    }

    pub fn response(&mut self) -> Response {
        self.try_response().expect("closed before the response")
    }

    /// Everything up to the end of the connection, which is no reset.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }

    /// So many bytes, whatever they are.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len {
            assert!(self.more(), "closed after {:?}", self.read);
        }
        let rest = self.read.split_off(len);
        std::mem::replace(&mut self.read, rest)
    }

    fn up_to(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                return self.exactly(at + end.len());
            }
            if !self.more() {
                assert!(self.read.is_empty(), "cut: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        }
    }

    fn exactly(&mut self, len: usize) -> Option<String> {
        while self.read.len() < len {
            if !self.more() {
                return None;
            }
        }
        Some(String::from_utf8(self.bytes(len)).unwrap())
    }

    fn more(&mut self) -> bool {
        let mut part = [0; 4_096];
        let len = match self.stream.read(&mut part) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server says nothing"),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.read)),
        };
        self.read.extend(&part[..len]);
        len > 0
    }
}
