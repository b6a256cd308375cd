"""HTTP/2 by hand: frames, and a connection that sends what no library would."""

import re
import select
import socket
import struct
import time

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# The hostile and the honest callers have an address each.
HOSTILE, HONEST = "127.0.0.2", "127.0.0.3"

# As linux/in.h has it.
IP_BIND_ADDRESS_NO_PORT = 24

# Enough to hold the GOAWAY that ends a flood.
KEPT_BYTES = 1 << 20


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values):
    names = {"header_table_size": 1, "initial_window_size": 4}
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


def text(value):
    """A string of HPACK, without Huffman's code: RFC 7541, section 5.2."""
    rest = len(value) - 127
    if rest < 0:
        return bytes([len(value)]) + value.encode()
    return (bytes([127, rest & 127 | 128, rest >> 7]) if rest > 127 else bytes([127, rest])) + value.encode()


def literal(name, value):
    """A header field that is not indexed. `name` is text, or its bytes in the block."""
    if isinstance(name, str):
        name = b"\0" + text(name)
    return name + text(value)


def head(path, **fields):
    """The header block of a gRPC call."""
    block = b"\x83\x86" + literal(b"\x04", path) + literal(b"\x01", "test")
    block += literal(b"\x0f\x10", "application/grpc") + literal("te", "trailers")
    return block + b"".join(literal(name.replace("_", "-"), value) for name, value in fields.items())


def message(protobuf=b"", compressed=0):
    return struct.pack(">BI", compressed, len(protobuf)) + protobuf


def call(stream, path, body=message(), **fields):
    """A whole unary call."""
    return frame(HEADERS, END_HEADERS, stream, head(path, **fields)) + frame(DATA, END_STREAM, stream, body)


def frames(received):
    """The frames that are whole in these bytes: kind, flags, stream, payload."""
    at = 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", received, at + 3)
        if at + 9 + length > len(received):
            return
        yield kind, flags, stream, bytes(received[at + 9 : at + 9 + length])
        at += 9 + length


class Connection:
    """One hostile connection, which notices when and how it is cut."""

    def __init__(self, address, begin=PREFACE + settings(), reads=True):
        self.socket = socket.socket()
        # Without it the kernel looks for a port that no connection of the address has, and a quarter of them are
        # soon used up.
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.reads = reads
        if not reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.bind((HOSTILE, 0))
        self.socket.settimeout(5)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = time.monotonic()
        self.received = bytearray()
        self.cut_after = None
        self.push(begin)

    def push(self, data, until=None):
        """Sends as the server takes it. Returns whether the connection lives."""
        left = memoryview(data)
        while left and not self.is_cut:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                if until and time.monotonic() > until:
                    return True
                select.select([self.socket] if self.reads else [], [self.socket], [], 0.1)
            except OSError:
                self.end()
            self.pull()
        return not self.is_cut

    def pull(self):
        """Reads what is there."""
        while self.reads and not self.is_cut:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.end()
            elif len(self.received) < KEPT_BYTES:
                self.received += data

    def is_closed(self):
        """Whether the server has closed, also for a connection that reads nothing."""
        self.pull()
        if not self.is_cut and not self.reads:
            poll = select.poll()
            poll.register(self.socket, select.POLLRDHUP)
            if poll.poll(0):
                self.end()
        return self.is_cut

    @property
    def is_cut(self):
        return self.cut_after is not None

    def end(self):
        self.cut_after = time.monotonic() - self.began
        self.socket.close()

    def verdict(self):
        """How it was cut, in a word: the status of the last answer of HTTP/1, or a GOAWAY's error."""
        if self.is_cut and (statuses := re.findall(rb"HTTP/1\.1 (\d+) ", self.received)):
            return statuses[-1].decode()
        for kind, _, _, payload in frames(self.received):
            if kind == GOAWAY and int.from_bytes(payload[4:8], "big"):
                return f"GOAWAY({int.from_bytes(payload[4:8], 'big')}) {payload[8:].decode()}".strip()
        return "closed" if self.is_cut else "not cut"

    def answered(self):
        """Streams that have an answer, or were reset."""
        ends = ((kind, flags, stream) for kind, flags, stream, _ in frames(self.received))
        return {stream for kind, flags, stream in ends if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)}

    def close(self):
        self.socket.close()
