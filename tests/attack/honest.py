"""The honest load: one call after the other from an address of its own, some of them over a new connection."""

import socket
import time

from attacks import CREATE, GET
from wire import (DATA, END_STREAM, HEADERS, HONEST, PREFACE, WINDOW_UPDATE, call, frame, frames, message,
                  settings)

# How often to call, in seconds.
PACE = 0.002
# One call in so many is made over a new connection.
NEWCOMER = 50


class Caller:
    """A connection that makes one call at a time, over TLS and with a token where the server asks for them."""

    def __init__(self, server):
        self.fields = {"authorization": f"Bearer {server.token}"} if server.token else {}
        self.socket = socket.socket()
        self.socket.bind((HONEST, 0))
        self.socket.settimeout(10)
        self.socket.connect(server.grpc)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.tls:
            self.socket = server.tls.wrap_socket(self.socket)
        self.socket.sendall(PREFACE + settings() + frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        self.stream = 1
        self.received = bytearray()

    def call(self, path, protobuf):
        """Whether the call is answered with a message."""
        self.socket.sendall(call(self.stream, path, message(protobuf), **self.fields))
        with_message = False
        while True:
            seen = 0
            for kind, flags, stream, payload in frames(self.received):
                seen += 9 + len(payload)
                with_message |= stream == self.stream and kind == DATA and bool(payload)
                if stream == self.stream and kind in (HEADERS, DATA) and flags & END_STREAM:
                    del self.received[:seen]
                    self.stream += 2
                    return with_message
            del self.received[:seen]
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("the server has closed")
            self.received += data

    def close(self):
        self.socket.close()


def field(number, text):
    return bytes([number << 3 | 2]) + length(len(text)) + text


def length(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def fill(server, users=1_000):
    """Creates users with names of 250 characters."""
    caller = Caller(server)
    for number in range(users):
        user = field(1, b"n" * 250) + field(2, b"u%d@example.com" % number)
        request = field(1, user) + field(2, b"user-%d" % number)
        assert caller.call(CREATE, request), "a user cannot be created"
    caller.close()


def load(server, is_over):
    """Calls until it is over. Returns the seconds of each call, and how many calls failed."""
    request = field(1, b"user-7")
    times, failed = [], 0
    caller = None
    number = 0
    while not is_over():
        began = time.monotonic()
        number += 1
        try:
            if number % NEWCOMER == 0:
                newcomer = Caller(server)
                failed += not newcomer.call(GET, request)
                newcomer.close()
                continue
            caller = caller or Caller(server)
            began = time.monotonic()
            failed += not caller.call(GET, request)
            times.append(time.monotonic() - began)
        except OSError:
            failed += 1
            caller = None
        time.sleep(max(0, began + PACE - time.monotonic()))
    return times, failed
