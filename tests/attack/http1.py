"""The attacks over HTTP/1.1."""

import itertools

from attacks import GET, IMPORT, Attack, again, byte_by_byte, flood, hold

# Bytes that a refused request is followed by: what a proxy would take for a part of it.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"


def request(path, *fields, method="POST", kind="application/json", body=b""):
    lines = [f"{method} {path} HTTP/1.1", "host: test", f"content-type: {kind}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


WHOLE = request("/", method="GET")
CHUNKED = "transfer-encoding: chunked"
ENDED = b"0\r\n\r\n"
TINY = b"1\r\n{\r\n"

# Each has two lengths, or ends its lines in two ways.
FORMS = [form + SMUGGLED for form in [
    request(GET, "content-length: 5", CHUNKED, body=ENDED),
    request(GET, CHUNKED, "content-length: 5", body=ENDED),
    request(GET, "content-length: 5", "content-length: 0", body=ENDED),
    request(GET, "content-length: 5", "content-length: 5", body=ENDED),
    request(GET, "content-length: 5, 5", body=ENDED),
    request(GET, "content-length: +5", body=ENDED),
    request(GET, "transfer-encoding: chunked, identity", body=ENDED),
    request(GET, "transfer-encoding: identity, chunked", body=ENDED),
    request(GET, "transfer-encoding: xchunked", body=ENDED),
    request(GET, "transfer-encoding : chunked", body=ENDED),
    request(GET, "x: y\r\n transfer-encoding: chunked", body=ENDED),
    request(GET, "x: y\ntransfer-encoding: chunked", body=ENDED),
    request(GET, "x: y\rtransfer-encoding: chunked", body=ENDED),
    request(GET, "host: other", body=ENDED),
    request(GET).replace(b"\r\n", b"\n"),
    request(GET).replace(b" HTTP/1.1", b""),
]]


def one_by_one(forms):
    """The next form for each connection."""
    forms = itertools.cycle(forms)
    return lambda: iter([(next(forms), 1)])


HTTP1_ATTACKS = [
    Attack("HTTP/1.1: 50 slow heads", hold(50, begin=WHOLE[:16], tick=byte_by_byte(WHOLE[16:-2] + b"x" * 100), every=0.5), seconds=13,
           told="408"),
    Attack("HTTP/1.1: 50 half heads", hold(50, begin=WHOLE[:-2]), seconds=13, told="408"),
    Attack("HTTP/1.1: head without an end", flood(again(b"x: y\r\n"), begin=WHOLE[:-2]), told="431"),
    Attack("HTTP/1.1: empty lines", flood(again(b"\r\n"), begin=b""), told="400"),
    Attack("HTTP/1.1: 50 bodies that never come", hold(50, begin=request(GET, "content-length: 9", body=b"{")), seconds=15),
    Attack("HTTP/1.1: 50 bodies that crawl", hold(50, begin=request(GET, CHUNKED), tick=lambda: itertools.repeat(TINY), every=0.5),
           "bounded", 15),
    Attack("HTTP/1.1: tiny chunks", flood(again(TINY), begin=request(IMPORT, CHUNKED, kind="application/connect+json"))),
    Attack("HTTP/1.1: pipelined requests", flood(again(WHOLE), begin=b""), "bounded"),
    Attack("HTTP/1.1: pipelined requests, unread", flood(again(WHOLE), begin=b"", reads=False), "bounded"),
    Attack("HTTP/1.1: smuggling", flood(one_by_one(FORMS), begin=b""), told="400"),
    Attack("admin port: HTTP/1.1: 50 half heads", hold(50, begin=WHOLE[:-2], admin=True), seconds=13, told="408"),
    Attack("admin port: HTTP/1.1: head without an end", flood(again(b"x: y\r\n"), begin=WHOLE[:-2], admin=True), told="431"),
    Attack("admin port: HTTP/1.1: pipelined requests", flood(again(WHOLE), begin=b"", admin=True), "bounded"),
    Attack("admin port: HTTP/1.1: smuggling", flood(one_by_one(FORMS), begin=b"", admin=True), told="400"),
    Attack("HTTP/1.1: 10,000 idle connections", hold(10_000, begin=WHOLE), "bounded", 20),
]
