"""Opens idle connections: idle.py PORT PID COUNT [--tls-ca FILE] [--tls-cert FILE
--tls-key FILE]. Each completes the HTTP/2 handshake and answers pings. Prints how many
bytes of memory the process has grown by for each, and how many are still open after a
while."""

import argparse
import select
import socket
import ssl
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig.usage import rss_kib

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
QUIET_SECONDS = 2


class Connection:
    def __init__(self, port, tls):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.buffer, self.closed = b"", False
        self.got_settings = self.got_ack = False
        self.socket.sendall(PREFACE)
        while not (self.got_settings and self.got_ack):
            self.read()
            if self.closed:
                raise SystemExit("the server closed a connection during the handshake")

    def read(self):
        try:
            data = self.socket.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.closed = True
        self.buffer += data
        while len(self.buffer) >= 9:
            end = 9 + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < end:
                break
            frame, self.buffer = self.buffer[:end], self.buffer[end:]
            self.handle(kind=frame[3], flags=frame[4], payload=frame[9:])

    def handle(self, kind, flags, payload):
        if kind == SETTINGS and flags & ACK:
            self.got_ack = True
        elif kind == SETTINGS:
            self.got_settings = True
            self.socket.sendall(b"\0\0\0\4\1\0\0\0\0")
        elif kind == PING and not flags & ACK:
            self.socket.sendall(b"\0\0\x08\6\1\0\0\0\0" + payload)
        elif kind == GOAWAY:
            self.closed = True


def wait(connections):
    """Stays idle, as a client does that has nothing to ask."""
    by_fd = {c.socket.fileno(): c for c in connections}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + QUIET_SECONDS
    while (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            by_fd[fd].read()
            if by_fd[fd].closed:
                poll.unregister(fd)


def context(given):
    """What TLS is made with; an idle connection sends no token."""
    if not given.tls_ca:
        return None
    tls = ssl.create_default_context(cafile=given.tls_ca)
    tls.set_alpn_protocols(["h2"])
    if given.tls_cert:
        tls.load_cert_chain(given.tls_cert, given.tls_key)
    return tls


def main():
    parser = argparse.ArgumentParser()
    for name in ("port", "pid", "count"):
        parser.add_argument(name, type=int)
    for name in ("--tls-ca", "--tls-cert", "--tls-key", "--token-file"):
        parser.add_argument(name)
    given = parser.parse_args()
    port, pid, count, tls = given.port, given.pid, given.count, context(given)
    # What is allocated on first use is no connection's own.
    for connection in [Connection(port, tls) for _ in range(4)]:
        connection.socket.close()
    time.sleep(1)
    before = rss_kib(pid)
    connections = [Connection(port, tls) for _ in range(count)]
    wait(connections)
    grown = (rss_kib(pid) - before) * 1024 // count
    print(grown, sum(not c.closed for c in connections))


if __name__ == "__main__":
    main()
