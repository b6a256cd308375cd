"""Makes every call of both contracts with grpcio, by several targets concurrently, as
go-mixed does (tests/proxies/README.md).

usage: mixed.py SERVICE_CONFIG USERS WINDOW NAME=ADDR...
"""

import collections
import contextlib
import json
import os
import pathlib
import sys
import threading
import time
import uuid

import grpc
import user_pb2 as article_pb
import user_pb2_grpc as article_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from user.v1 import user_pb2, user_service_pb2 as pb, user_service_pb2_grpc

Code = grpc.StatusCode

# How long a caller waits between two rounds of calls, and before a stream is called again.
PAUSE, AGAIN = 0.2, 0.05
# Deadlines in seconds: long, because machines may be slow.
CALL_SECONDS, IMPORT_SECONDS = 60, 300
# How long what was created may take to be told.
PATIENCE = 300


class Count:
    """What one kind of calls by one target has seen since the last report."""

    def __init__(self, target: str, kind: str):
        self.target, self.kind = target, kind
        self.lock = threading.Lock()
        self.calls, self.failures = 0, collections.Counter()

    def ended(self) -> None:
        with self.lock:
            self.calls += 1

    def failed(self, what: str) -> None:
        with self.lock:
            self.failures[what] += 1

    def report(self) -> dict:
        with self.lock:
            said = {"target": self.target, "kind": self.kind, "calls": self.calls, "failed": dict(self.failures)}
            self.calls, self.failures = 0, collections.Counter()
        return said


def text(method: str, error: grpc.RpcError) -> str:
    return f"{method} {error.code().name}: {error.details()[:160]}"


def reason_of(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for packed in status.details if status else []:
        if packed.Unpack(info):
            return info.reason
    return ""


class Caller:
    def __init__(self, channel, counted: Count, watched=None):
        self.counted, self.watched = counted, watched
        self.users = user_service_pb2_grpc.UserServiceStub(channel)
        self.article = article_grpc.UserServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def run(self, stop: threading.Event) -> None:
        numbers = iter(range(sys.maxsize))
        while not stop.wait(PAUSE):
            self.round(f"python-{os.getpid()}-{self.counted.target}-{self.counted.kind}-{next(numbers)}")

    def round(self, id: str) -> None:
        """No round goes on after a call that failed, because what follows would fail with it."""
        # A watch that has not begun tells nothing of what is created before.
        begun = self.watched and self.watched.token
        user, email = user_pb2.User(name=id, email=f"{id}@example.com", age=36), f"{id}@example.com"
        create = pb.CreateUserRequest(user_id=id, request_id=str(uuid.uuid4()), user=user)
        update = pb.UpdateUserRequest(request_id=str(uuid.uuid4()), user=user_pb2.User(id=id, age=37))
        put = article_pb.CreateUserRequest(user=article_pb.User(id=id, name=id, email=email))
        large = pb.CreateUserRequest(user=user_pb2.User(name="x" * 300_000))
        calls = [
            ("CreateUser", self.users.CreateUser, create),
            ("GetUser", self.users.GetUser, pb.GetUserRequest(id=id)),
            ("UpdateUser", self.users.UpdateUser, update),
            ("BatchGetUsers", self.users.BatchGetUsers, pb.BatchGetUsersRequest(ids=[id, id])),
            ("ListUsers", self.users.ListUsers, pb.ListUsersRequest(page_size=1000)),
            ("article CreateUser", self.article.CreateUser, put),
            ("article GetUser", self.article.GetUser, article_pb.UserRequest(user=article_pb.User(id=id))),
            ("health Check", self.health.Check, health_pb2.HealthCheckRequest(service="liveness")),
            ("largest error", self.users.BatchGetUsers, pb.BatchGetUsersRequest(ids=["BAD"] * 1000),
             Code.INVALID_ARGUMENT, "INVALID_FIELDS"),
            ("message too large", self.users.CreateUser, large, Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
            ("DeleteUser", self.users.DeleteUser, pb.DeleteUserRequest(id=id, request_id=str(uuid.uuid4()))),
        ]
        for call in calls:
            if not self.ends(*call):
                return
            if call[0] == "CreateUser" and begun:
                self.watched.expected.add(id)

    def ends(self, method: str, call, request, code=Code.OK, reason="") -> bool:
        """Counts a call that has to end with a code, and with its reason in the details."""
        failed = None
        try:
            call(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            failed = error
        self.counted.ended()
        if failed is None and code is Code.OK:
            return True
        if failed is not None and failed.code() is code and reason_of(failed) == reason:
            return True
        self.counted.failed(text(method, failed) if failed else f"{method} OK")
        return False


class Watched:
    """Compares the users that were created with those that a watch told."""

    def __init__(self, channel, counted: Count):
        self.users, self.counted = user_service_pb2_grpc.UserServiceStub(channel), counted
        self.expected, self.told = set(), set()
        self.over, self.stream, self.token = False, None, ""

    def run(self) -> None:
        while not self.over:
            self.stream = self.users.WatchUsers(pb.WatchUsersRequest(resume_token=self.token))
            try:
                for message in self.stream:
                    self.token = message.resume_token
                    self.tell(message)
                self.counted.failed("WatchUsers OK: it ended")
            except grpc.RpcError as error:
                if not self.over:
                    self.counted.failed(text("WatchUsers", error))
            self.counted.ended()
            time.sleep(AGAIN)

    def tell(self, message) -> None:
        if message.WhichOneof("event") == "created":
            if message.created.id in self.told:
                self.counted.failed("a user was told twice")
            self.told.add(message.created.id)

    def end(self) -> None:
        """Once no more users are created."""
        until = time.monotonic() + PATIENCE
        while self.expected - self.told and time.monotonic() < until:
            time.sleep(AGAIN)
        self.over = True
        if self.stream is not None:
            self.stream.cancel()
        if missing := sorted(self.expected - self.told):
            self.counted.failed(f"{len(missing)} users were not told, such as {missing[0]}")


class Imported:
    """Imports the same users over and over, all of them at least once. A new stream sends
    what the last one has not answered."""

    def __init__(self, channel, counted: Count, total: int):
        self.users, self.counted, self.total = user_service_pb2_grpc.UserServiceStub(channel), counted, total

    def run(self, stop: threading.Event) -> None:
        answered, whole = 0, False
        while not stop.wait(PAUSE) or not whole:
            try:
                for answer in self.users.ImportUsers(self.requests(answered), timeout=IMPORT_SECONDS):
                    if answer.WhichOneof("result") == "error":
                        self.counted.failed(f"an imported user was answered {answer.error.message[:160]}")
                    answered += 1
                if answered < self.total:
                    self.counted.failed(f"an import ended with OK after {answered} users of {self.total}")
            except grpc.RpcError as error:
                self.counted.failed(text("ImportUsers", error))
            self.counted.ended()
            whole |= answered == self.total
            answered %= self.total

    def requests(self, first: int):
        for number in range(first, self.total):
            id = f"import-{number}"
            yield pb.ImportUsersRequest(user_id=id, user=user_pb2.User(name="x" * 200, email=f"{id}@example.com"))


def main() -> None:
    config, total, stop = pathlib.Path(sys.argv[1]).read_text(), int(sys.argv[2]), threading.Event()
    counts, callers, watches = [], [], []
    # What a server may send before it is told to go on. 0: what the library takes.
    window = [("grpc.http2.lookahead_bytes", int(sys.argv[3]))] if int(sys.argv[3]) else []

    def counted(target: str, kind: str) -> Count:
        counts.append(Count(target, kind))
        return counts[-1]

    with contextlib.ExitStack() as stack:
        for argument in sys.argv[4:]:
            target, addr = argument.split("=")
            bare = stack.enter_context(grpc.insecure_channel(addr, [("grpc.enable_retries", 0), *window]))
            retried = stack.enter_context(grpc.insecure_channel(addr, [("grpc.service_config", config), *window]))
            watched = Watched(retried, counted(target, "watch"))
            watches.append((watched, threading.Thread(target=watched.run)))
            for run in [
                Caller(bare, counted(target, "bare")).run,
                Caller(retried, counted(target, "retried"), watched).run,
                Imported(retried, counted(target, "import"), total).run,
            ]:
                callers.append(threading.Thread(target=run, args=[stop]))
        for thread in [*callers, *(thread for _, thread in watches)]:
            thread.start()
        for _ in sys.stdin:
            print(json.dumps([count.report() for count in counts]), flush=True)
        stop.set()
        for thread in callers:
            thread.join()
        for watched, thread in watches:
            watched.end()
            thread.join()
        print(json.dumps([count.report() for count in counts]), flush=True)


if __name__ == "__main__":
    main()
