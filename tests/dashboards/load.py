"""A caller who knows how each of its calls has to end, and counts them; and what it
can do to a database. For live.py."""

import collections
import contextlib
import os
import pathlib
import signal
import socket
import struct
import sys
import threading

import grpc
import hpack
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "target" / "clients" / "python" / "ours"), str(ROOT / "deploy" / "stack")]

from native import PATIENCE, until  # noqa: E402
from user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc  # noqa: E402

# How many unary calls may be in flight: one caller alone is far from it.
PLACES = 2
EVERYBODY = user_service_pb2.ListUsersRequest()


class Load:
    """Calls with known ends, counted as the caller sees them."""

    def __init__(self, addr: str):
        host, port = addr.rsplit(":", 1)
        self.addr = host, int(port)
        self.channel = grpc.insecure_channel(addr)
        self.users = user_service_pb2_grpc.UserServiceStub(self.channel)
        self.seen = collections.Counter()
        # Messages that callers sent, and got, by method.
        self.sent, self.got = collections.Counter(WatchUsers=1), collections.Counter()
        # What became of imported users.
        self.imported = collections.Counter()
        # Open to the end, so it is never counted as handled.
        self.watch = self.users.WatchUsers(user_service_pb2.WatchUsersRequest())
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in self.watch:
                self.got["WatchUsers"] += 1

    def call(self, method: str, request) -> str:
        try:
            getattr(self.users, method)(request, timeout=10)
            code = name(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            code = name(error.code())
        return self.ended(method, code)

    def ended(self, method: str, code: str) -> str:
        """Counts a unary call. One that is turned away is not read."""
        self.seen[method, code] += 1
        self.sent[method] += code != "Unavailable"
        self.got[method] += code == "OK"
        return code

    def import_users(self, number: int) -> None:
        """One who is new, the same again, and another with the address."""
        users = [user_pb2.User(name=name, email=f"import{number}@example.com") for name in ("Ada", "Ada", "Bob")]
        requests = [user_service_pb2.ImportUsersRequest(user=user) for user in users]
        answers = list(self.users.ImportUsers(iter(requests), timeout=10))
        self.imported.update("refused" if a.WhichOneof("result") == "error" else a.WhichOneof("result") for a in answers)
        self.seen["ImportUsers", "OK"] += 1
        self.sent["ImportUsers"] += len(requests)
        self.got["ImportUsers"] += len(answers)

    def round(self, number: int) -> None:
        user = user_pb2.User(name="Ada", email=f"ada{number}@example.com")
        self.call("CreateUser", user_service_pb2.CreateUserRequest(user=user))
        self.call("CreateUser", user_service_pb2.CreateUserRequest(user=user_pb2.User(name="")))
        self.call("GetUser", user_service_pb2.GetUserRequest(id="nobody"))
        self.call("ListUsers", user_service_pb2.ListUsersRequest())
        self.call("BatchGetUsers", user_service_pb2.BatchGetUsersRequest(ids=["nobody"]))
        self.import_users(number)

    def rounds(self, numbers) -> None:
        for number in numbers:
            self.round(number)

    def held(self) -> "Held":
        return Held(self.addr)

    @contextlib.contextmanager
    def full(self):
        """Every place is taken by a call that waits."""
        held = [self.held() for _ in range(PLACES)]
        until("a call is turned away", lambda: self.call("ListUsers", EVERYBODY) == "Unavailable")
        yield
        for call in held:
            call.release()
            self.ended("ListUsers", "OK")

    def crowd(self) -> None:
        with self.full():
            for _ in range(5):
                self.call("ListUsers", EVERYBODY)

    def slow(self, database) -> None:
        """A call that the store keeps waiting."""
        signalled(database.pid, signal.SIGSTOP)
        threading.Timer(0.4, signalled, [database.pid, signal.SIGCONT]).start()
        self.call("ListUsers", EVERYBODY)


class Held:
    """A call of ListUsers whose caller takes no byte of the answer, so it keeps its place until it is released."""

    def __init__(self, addr: tuple[str, int]):
        self.socket = socket.create_connection(addr)
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "held"),
                   (":path", "/user.v1.UserService/ListUsers"), ("content-type", "application/grpc"), ("te", "trailers")]
        message = EVERYBODY.SerializeToString()
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        self.send(HeadersFrame(1, hpack.Encoder().encode(headers), flags=["END_HEADERS"]))
        self.send(DataFrame(1, struct.pack(">?I", False, len(message)) + message, flags=["END_STREAM"]))
        self.begun, self.ended = threading.Event(), threading.Event()
        threading.Thread(target=self.follow, daemon=True).start()
        assert self.begun.wait(PATIENCE), "the call that is to be held got no answer"

    def send(self, frame: Frame) -> None:
        self.socket.sendall(frame.serialize())

    def follow(self) -> None:
        """Answers the server's pings, also in a drain."""
        reader, headers = self.socket.makefile("rb"), hpack.Decoder()
        while head := reader.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(reader.read(length)))
            if isinstance(frame, PingFrame | SettingsFrame) and "ACK" not in frame.flags:
                self.send(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]) if isinstance(frame, PingFrame)
                          else SettingsFrame(flags=["ACK"]))
            elif isinstance(frame, HeadersFrame):
                # Without a status these are the headers of an answer, which need no window.
                status = dict(headers.decode(frame.data)).get("grpc-status")
                {None: self.begun.set, "0": self.ended.set}[status]()

    def release(self) -> None:
        """Takes the answer."""
        self.send(WindowUpdateFrame(1, window_increment=1 << 20))
        assert self.ended.wait(PATIENCE), "the call that was held did not end well"
        # Close alone leaves the connection open while the other thread reads from it.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def name(code: grpc.StatusCode) -> str:
    """As the service's labels spell it."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")


def signalled(pid: int, what: signal.Signals) -> None:
    """Sends a signal to a process and to what it has started."""
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        signalled(int(child), what)
    os.kill(pid, what)
