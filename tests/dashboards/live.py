"""The native stack of deploy/ under a small load with faults: every query of the
dashboard and of the rules finds what it asks for, the counters say what the
callers have counted, and alerts fire with their fault and not before. Usage:
live.py USER-SERVICE"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.parse

import grpc
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "target" / "clients" / "python" / "ours"), str(ROOT / "deploy" / "stack")]

import native  # noqa: E402
from native import PATIENCE, until  # noqa: E402
from user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc  # noqa: E402

DEPLOY = ROOT / "deploy"
# Right to be empty, or not a number, after a minute in which little went wrong.
MAY_BE_EMPTY = {
    "UserServiceAbsent": "up is there",
    "UserServiceInstanceDown": "the instance is up",
    "UserServiceRestarts": "it was started once",
    "Reads by the cache": "the store is PostgreSQL",
    "UserServicePanics": "nothing panics",
    "UserServiceStoreReadOnly": "the store takes writes",
    "UserServiceSlow": "calls are fast",
    "UserServiceStoreSlow": "the store is fast",
    "UserServiceStoreQueueLong": "few writes wait",
    "UserServiceCallsNearLimit": "calls in flight come and go between two scrapes",
    "UserServiceConnectionsNearLimit": "few connections are open",
    "UserServiceFilesNearLimit": "few files are open",
}


# Each fires with a fault of its own.
FAULTS = ["UserServiceShedding", "UserServiceSpansLost", "UserServiceStoreReadOnly", "UserServiceInstanceDown"]


class Load:
    """Calls with known ends, counted as the caller sees them."""

    def __init__(self, addr: str):
        self.channel = grpc.insecure_channel(addr)
        self.users = user_service_pb2_grpc.UserServiceStub(self.channel)
        # Open to the end, so it is never counted as handled.
        self.watch = self.users.WatchUsers(user_service_pb2.WatchUsersRequest())
        threading.Thread(target=self.follow, daemon=True).start()
        self.seen = collections.Counter()

    def follow(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in self.watch:
                pass

    def call(self, method: str, request) -> str:
        try:
            getattr(self.users, method)(request, timeout=10)
            code = name(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            code = name(error.code())
        self.seen[method, code] += 1
        return code

    def round(self, number: int) -> None:
        user = user_pb2.User(name="Ada", email=f"ada{number}@example.com")
        self.call("CreateUser", user_service_pb2.CreateUserRequest(user=user))
        self.call("CreateUser", user_service_pb2.CreateUserRequest(user=user_pb2.User(name="")))
        self.call("GetUser", user_service_pb2.GetUserRequest(id="nobody"))
        self.call("ListUsers", user_service_pb2.ListUsersRequest())
        self.call("BatchGetUsers", user_service_pb2.BatchGetUsersRequest(ids=["nobody"]))

    def held(self):
        """A call whose request is late, and what lets it come."""
        release = threading.Event()

        def late():
            release.wait(PATIENCE)
            yield user_service_pb2.GetUserRequest(id="nobody").SerializeToString()

        return self.channel.stream_unary("/user.v1.UserService/GetUser").future(late()), release

    def crowd(self) -> None:
        """Calls while another has the one place there is."""
        held, release = self.held()
        ask = user_service_pb2.ListUsersRequest()
        until("a call is turned away", lambda: self.call("ListUsers", ask) == "Unavailable")
        for _ in range(5):
            self.call("ListUsers", ask)
        release.set()
        self.seen["GetUser", name(held.code())] += 1


def name(code: grpc.StatusCode) -> str:
    """As the service's labels spell it."""
    return "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")


class Prometheus:
    def __init__(self, url: str):
        self.url = url

    def ask(self, query: str, at: float | None = None) -> list[dict]:
        """What a query finds now or then, but for what is not a number."""
        text = native.fetch(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": query} | ({"time": at} if at else {})))
        found = json.loads(text)["data"]["result"]
        return [sample for sample in found if sample["value"][1] != "NaN"]

    def number(self, query: str) -> float:
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else -1.0

    def fires(self, alert: str) -> bool:
        return bool(self.ask(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    def must_fire(self, alert: str) -> None:
        until(f"{alert} fires", lambda: self.fires(alert))


def hurried(text: str) -> str:
    """Somebody on call waits for minutes; a test need not. What is asked stays the same."""
    return re.sub(r"\bfor: \d+[mh]", "for: 2s", re.sub(r"interval: \d+s", "interval: 1s", text))


def panels() -> list[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana" / "user-service.json").read_text())
    chosen = {"$__rate_interval": "1m", "$job": ".+", "$instance": ".+"}
    queries = []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"]
            for name, value in chosen.items():
                expr = expr.replace(name, value)
            queries.append((panel["title"], expr))
    return queries


def rules() -> list[tuple[str, str]]:
    groups = [group for path in (DEPLOY / "prometheus").glob("*.yaml")
              for group in yaml.safe_load(path.read_text())["groups"]]
    return [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


def operands(expr: str) -> list[str]:
    """What an alert compares: where the comparison does not hold, its sides must still be there."""
    return [re.split(r" (?:>=|==|>) ", part)[0] for part in re.split(r"\s+and ", expr)]


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store, database = native.postgres(stack, folder)
        endpoint, collector = native.collector(stack)
        env = {"USERSVC_STORE_URL": store, "USERSVC_MAX_UNARY_CALLS": "1",
               "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "500"}
        process, grpc_addr, admin_addr = native.service(stack, sys.argv[1], folder, env)
        prometheus = Prometheus(native.prometheus(stack, folder, admin_addr, hurried))
        load = Load(grpc_addr)
        stack.callback(load.channel.close)
        # Rates need a scrape from before the load.
        until("a first scrape", lambda: prometheus.ask("user_service_build_info"))
        failures = run(prometheus, load, collector, database, process)
        if failures:
            sys.exit("\n".join(failures))
        print(f"dashboards: {sum(load.seen.values())} calls, {len(panels())} queries and {len(rules())} rules agree")


def run(prometheus: Prometheus, load: Load, collector, database, process) -> list[str]:
    """The load and its faults, one after the other; what was wrong."""
    numbers = itertools.count()
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        load.round(next(numbers))
    until("spans reach the trace store", lambda: native.Sink.exports > 0)
    early = [f"{alert} fires without its fault" for alert in FAULTS if prometheus.fires(alert)]

    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        load.round(next(numbers))
        load.crowd()
    prometheus.must_fire("UserServiceShedding")
    collector.kill()
    load.round(next(numbers))
    prometheus.must_fire("UserServiceSpansLost")
    failures = [*early, *counts(prometheus, load), *shown(prometheus, load), *empty(prometheus)]

    # The database says nothing, and later goes on as if nothing had been.
    asked = user_service_pb2.ListUsersRequest()
    signalled(database.pid, signal.SIGSTOP)
    prometheus.must_fire("UserServiceStoreReadOnly")
    signalled(database.pid, signal.SIGCONT)
    until("the alert is over", lambda: not prometheus.fires("UserServiceStoreReadOnly"))
    until("calls are answered again", lambda: load.call("ListUsers", asked) == "OK")

    # Sessions are cut, and new ones refused.
    database.send_signal(signal.SIGINT)
    prometheus.must_fire("UserServiceStoreReadOnly")
    until("calls fail without the store", lambda: load.call("ListUsers", asked) == "Unavailable")

    # A call holds up the drain.
    held, release = load.held()
    until("the call is in flight", lambda: prometheus.number('grpc_server_admission_in_flight{kind="unary"}') == 1)
    process.terminate()
    until("the drain is seen", lambda: prometheus.number("sum(user_service_draining)") == 1)
    release.set()
    held.code()
    prometheus.must_fire("UserServiceInstanceDown")
    return failures


def signalled(pid: int, what: signal.Signals) -> None:
    """Sends a signal to a process and to what it has started."""
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        signalled(int(child), what)
    os.kill(pid, what)


def counts(prometheus: Prometheus, load: Load):
    """Where the counters differ from what the callers have counted."""
    handled = 'sum(grpc_server_handled_total{grpc_service="user.v1.UserService"})'
    total = sum(load.seen.values())
    until(f"all {total} calls are scraped", lambda: prometheus.number(handled) >= total)
    found = prometheus.ask('grpc_server_handled_total{grpc_service="user.v1.UserService"} > 0')
    said = {(s["metric"]["grpc_method"], s["metric"]["grpc_code"]): int(s["value"][1]) for s in found}
    if said != load.seen:
        yield f"counted by callers: {dict(load.seen)}\ncounted by the service: {said}"
    shed = sum(count for (_, code), count in load.seen.items() if code == "Unavailable")
    if prometheus.number('grpc_server_admission_shed_total{kind="unary"}') != shed:
        yield f"{shed} calls were turned away, which the service counts differently"


def shown(prometheus: Prometheus, load: Load):
    """Where panels differ by more than 2% from what the callers have counted."""
    # Nothing is extrapolated beyond the last scrape, and the whole load is in the panels' minute.
    last = prometheus.number("max(timestamp(grpc_server_admission_limit))")
    for title, label, part in [("Calls by method", "grpc_method", 0), ("Calls by code", "grpc_code", 1)]:
        expr = next(expr for where, expr in panels() if where == title)
        counted = collections.Counter()
        for key, count in load.seen.items():
            counted[key[part]] += count
        said = collections.Counter()
        for sample in prometheus.ask(expr, last):
            said[sample["metric"][label]] += 60 * float(sample["value"][1])
        for name, count in counted.items():
            if abs(said[name] - count) > 0.02 * count:
                yield f"{title}: {name} is {said[name]:.1f} a minute, and {count} by the callers"


def empty(prometheus: Prometheus):
    """The queries that find nothing."""
    for where, expr in [*panels(), *rules()]:
        if prometheus.ask(expr):
            continue
        if where not in MAY_BE_EMPTY:
            yield f"{where}: nothing is found by {expr}"
        elif where.startswith("UserService") and where != "UserServiceAbsent":
            for side in operands(expr):
                if not prometheus.ask(side):
                    yield f"{where}: nothing is found by {side}"


if __name__ == "__main__":
    main()
