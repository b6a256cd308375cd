"""Records what the dashboard shows while things go wrong: two replicas on one PostgreSQL under
load, and a server on SQLite with TLS, tokens and a policy (guarded.py). In this order: a
certificate of another issuer, an overload, slow statements, a database that does not answer, a
replica that is killed, a policy that cannot be used, a rollout, and a collector that is gone.
Writes what Prometheus answers to each query of the dashboard, for picture.mjs.
Usage: scene.py USER-SERVICE ANSWERS.json"""

import contextlib
import http.server
import json
import math
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / "deploy" / "stack"), str(ROOT / "tests" / "dashboards")]

import grpc  # noqa: E402
import native  # noqa: E402
from guarded import POLICY, Guarded  # noqa: E402
from load import Load, signalled, user_pb2, user_service_pb2 as messages  # noqa: E402

BOARD = json.loads((ROOT / "deploy" / "grafana" / "user-service.json").read_text())
SCRAPE_SECONDS = 5
# Grafana computes four scrapes where a panel is wide enough for every one.
CHOSEN = {"$__rate_interval": f"{4 * SCRAPE_SECONDS}s", "$job": ".+", "$instance": ".+"}
MOST_UNARY_CALLS = 16
CALLERS = 4


def hurried(text: str) -> str:
    """Scrapes more often and lets alerts fire sooner, because this takes minutes and not hours."""
    for slow in ("interval: 15s", "interval: 30s"):
        text = text.replace(slow, f"interval: {SCRAPE_SECONDS}s")
    return text.replace("for: 2m", "for: 15s").replace("for: 1m", "for: 10s").replace("for: 5m", "for: 30s")


class Replica:
    """A process of the service, and its callers."""

    def __init__(self, stack: contextlib.ExitStack, binary: str, folder: pathlib.Path, env: dict[str, str]):
        self.folder = folder / f"replica-{random.randrange(10**9)}"
        self.folder.mkdir()
        self.stack, self.binary = stack, binary
        self.env = env | {name: f"127.0.0.1:{native.free_port()}" for name in ("USERSVC_GRPC_ADDR", "USERSVC_ADMIN_ADDR")}
        self.calling = threading.Event()
        self.start()

    def start(self) -> None:
        self.process, self.grpc, self.admin = native.service(self.stack, self.binary, self.folder, self.env)
        self.load = Load(self.grpc)
        self.calling.set()
        for number in range(CALLERS):
            threading.Thread(target=self.caller, args=(self.load, number), daemon=True).start()

    def stop(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait()
        self.calling.clear()
        self.load.channel.close()

    def caller(self, load: Load, number: int) -> None:
        """Mostly reads, some writes, a few invalid requests, until the replica ends."""
        threading.Thread(target=self.watcher, args=(load,), daemon=True).start()
        ids = []
        with contextlib.suppress(ValueError):  # the channel is closed
            while self.calling.is_set() and load is self.load:
                email = f"{random.randrange(10**12)}@example.com"
                user = user_pb2.User(name="Ada Lovelace" * random.randint(1, 4), email=email)
                with contextlib.suppress(grpc.RpcError):
                    made = load.users.CreateUser(messages.CreateUserRequest(user=user), timeout=2).user
                    ids = [*ids, made.id][-50:]
                for _ in range(random.randint(2, 10)):
                    load.call("GetUser", messages.GetUserRequest(id=random.choice(ids or ["nobody"])))
                load.call("ListUsers", messages.ListUsersRequest(page_size=random.randint(1, 100)))
                load.call("BatchGetUsers", messages.BatchGetUsersRequest(ids=ids[:20] or ["nobody"]))
                if ids and random.random() < 0.2:
                    load.call("DeleteUser", messages.DeleteUserRequest(id=ids.pop()))
                if random.random() < 0.3:
                    load.call("CreateUser", messages.CreateUserRequest(user=user_pb2.User(name="")))
                    load.call("GetUser", messages.GetUserRequest(id="nobody"))
                if random.random() < 0.2:
                    with contextlib.suppress(grpc.RpcError):
                        load.import_users(random.randrange(10**12))
                if number == 0:
                    for path in ("/grpc.health.v1.Health/Check", "/nowhere/Nothing"):
                        with contextlib.suppress(grpc.RpcError):
                            load.channel.unary_unary(path)(b"", timeout=2)
                # The rate varies, so that lines are not flat.
                time.sleep(0.25 + 0.2 * math.sin(time.monotonic() / 20 + number))

    def watcher(self, load: Load) -> None:
        """Follows the changes, over another connection when one ends."""
        token = ""
        while self.calling.is_set() and load is self.load:
            with contextlib.suppress(grpc.RpcError, ValueError):
                for message in load.users.WatchUsers(messages.WatchUsersRequest(initial_state=not token, resume_token=token)):
                    token = message.resume_token
            time.sleep(0.5)


def scene(stack: contextlib.ExitStack, folder: pathlib.Path, binary: str) -> dict:
    store, database = native.postgres(stack, folder)
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), native.Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    env = {"USERSVC_STORE_URL": store, "USERSVC_MAX_UNARY_CALLS": str(MOST_UNARY_CALLS), "USERSVC_MAX_CONNECTIONS": "100",
           "USERSVC_MAX_CONNECTION_AGE_MS": "60000", "USERSVC_SHUTDOWN_DELAY_MS": "10000",
           "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_port}",
           "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    first, second = (Replica(stack, binary, folder, env) for _ in range(2))
    guarded = Guarded(stack, binary, folder)
    prometheus = native.prometheus(stack, folder, first.admin, hurried)
    targets = folder / "stack" / "targets" / "targets.yaml"

    def watched(*replicas: Replica) -> None:
        targets.write_text(json.dumps([{"targets": [server.admin for server in (*replicas, guarded)]}]))

    def act(what: str, seconds: float) -> None:
        print(f"scene: {what}", file=sys.stderr, flush=True)
        time.sleep(seconds)

    watched(first, second)
    began = time.time()
    act("all is well", 40)
    guarded.show(guarded.foreign)
    act("a certificate of another issuer", 25)
    guarded.renew()
    act("the certificate is renewed", 25)
    with overloaded(first):
        act("more calls than a replica may have in flight", 25)
    act("all is well", 30)
    for _ in range(8):
        signalled(database.pid, signal.SIGSTOP)
        act("statements are slow", 0.5)
        signalled(database.pid, signal.SIGCONT)
        time.sleep(2)
    act("all is well", 30)
    signalled(database.pid, signal.SIGSTOP)
    act("the database does not answer", 20)
    signalled(database.pid, signal.SIGCONT)
    act("all is well", 30)
    second.stop(signal.SIGKILL)
    act("a replica was killed", 10)
    second.start()
    guarded.rules("not a policy")
    act("a policy that cannot be used", 20)
    guarded.rules(POLICY)
    act("all is well", 20)
    third = Replica(stack, binary, folder, env)
    watched(first, second, third)
    act("a rollout: a new replica", 15)
    first.stop(signal.SIGTERM)
    watched(second, third)
    fourth = Replica(stack, binary, folder, env)
    watched(second, third, fourth)
    act("a rollout: another", 15)
    second.stop(signal.SIGTERM)
    watched(third, fourth)
    act("all is well", 25)
    sink.shutdown()
    sink.server_close()
    act("the collector is gone", 25)
    ended = time.time()
    return {"from": began, "to": ended, "step": SCRAPE_SECONDS, "panels": answers(prometheus, began, ended)}


@contextlib.contextmanager
def overloaded(replica: Replica):
    """Calls whose callers take no answer hold nearly every permit."""
    held = [replica.load.held() for _ in range(MOST_UNARY_CALLS - 1)]
    yield
    for call in held:
        call.release()


def answers(prometheus: str, began: float, ended: float) -> dict[int, list]:
    """The series that each query of each panel finds, by panel id."""
    found = {}
    for panel in BOARD["panels"]:
        found[panel["id"]] = []
        for target in panel.get("targets", []):
            expr = target["expr"]
            for name, value in CHOSEN.items():
                expr = expr.replace(name, value)
            query = {"query": expr, "time": ended} if target["instant"] else {
                "query": expr, "start": began, "end": ended, "step": SCRAPE_SECONDS}
            kind = "query" if target["instant"] else "query_range"
            said = json.loads(native.fetch(f"{prometheus}/api/v1/{kind}?{urllib.parse.urlencode(query)}"))["data"]["result"]
            found[panel["id"]].append([
                {"metric": series["metric"], "values": series.get("values") or [series["value"]]} for series in said])
    return found


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = scene(stack, folder, sys.argv[1])
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
