"""A real Prometheus scrapes the real service under a small load with faults:
every query of the dashboard and of the rules finds what it asks for, and the
counters say what the callers have counted. Usage: live.py USER-SERVICE"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import grpc
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "target" / "clients" / "python" / "ours"))

from user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc  # noqa: E402

DEPLOY = ROOT / "deploy"
PATIENCE = 120
# Right to be empty, or not a number, after a minute in which little went wrong.
MAY_BE_EMPTY = {
    "UserServiceAbsent": "up is there",
    "UserServiceInstanceDown": "the instance is up",
    "UserServiceRestarts": "it was started once",
    "Connections to PostgreSQL": "the store is SQLite",
    "Attempts on PostgreSQL": "the store is SQLite",
    "UserServicePanics": "nothing panics",
    "UserServiceStoreReadOnly": "the store takes writes",
    "UserServiceSlow": "calls are fast",
    "UserServiceStoreSlow": "the store is fast",
    "UserServiceStoreQueueLong": "few writes wait",
    "UserServiceCallsNearLimit": "calls in flight come and go between two scrapes",
    "UserServiceConnectionsNearLimit": "few connections are open",
    "UserServiceFilesNearLimit": "few files are open",
}


class Load:
    """Calls with known ends, counted as the caller sees them."""

    def __init__(self, addr: str):
        self.channel = grpc.insecure_channel(addr)
        self.users = user_service_pb2_grpc.UserServiceStub(self.channel)
        self.seen = collections.Counter()

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

    def crowd(self) -> None:
        """Calls while another, whose request is late, has the one place there is."""
        release = threading.Event()

        def late():
            release.wait(PATIENCE)
            yield user_service_pb2.GetUserRequest(id="nobody").SerializeToString()

        held = self.channel.stream_unary("/user.v1.UserService/GetUser").future(late())
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
    def __init__(self, stack: contextlib.ExitStack, folder: pathlib.Path, target: str):
        self.url = f"http://127.0.0.1:{free_port()}"
        for path in (DEPLOY / "prometheus").glob("*.yaml"):
            # Somebody on call waits for half a minute; a test need not. What is asked stays the same.
            text = path.read_text().replace("interval: 30s", "interval: 1s")
            (folder / path.name).write_text(text)
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{folder}/*.yaml"],
            "scrape_configs": [{"job_name": "user-service", "static_configs": [{"targets": [target]}]}],
        }))
        run(stack, ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"])
        until("Prometheus is ready", lambda: fetch(f"{self.url}/-/ready"))

    def ask(self, query: str) -> list[dict]:
        """What a query finds now, but for what is not a number."""
        text = fetch(f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        found = json.loads(text)["data"]["result"]
        return [sample for sample in found if sample["value"][1] != "NaN"]

    def number(self, query: str) -> float:
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else -1.0


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def until(what: str, ready):
    """Waits for a thing to be so, and returns what it says."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if said := ready():
                return said
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(stack: contextlib.ExitStack, command: list[str], env: dict[str, str] | None = None, log=None):
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stderr=log)
    stack.callback(process.wait, timeout=60)
    stack.callback(process.terminate)
    return process


def serve(stack: contextlib.ExitStack, binary: str, folder: pathlib.Path) -> tuple[str, str]:
    """Starts the service, and returns where it serves gRPC and metrics."""
    log = folder / "log"
    env = {
        "USERSVC_GRPC_ADDR": "127.0.0.1:0", "USERSVC_ADMIN_ADDR": "127.0.0.1:0", "USERSVC_LOG_FORMAT": "json",
        "USERSVC_STORE_URL": f"sqlite:{folder}/users.db", "USERSVC_MAX_UNARY_CALLS": "1",
        # A collector that is not there: its spans are lost, and counted.
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    run(stack, [binary], env, stack.enter_context(log.open("w")))
    until("the service serves", lambda: '"serving"' in log.read_text())
    listening = next(line for line in map(json.loads, log.read_text().splitlines()) if line["message"] == "listening")
    return listening["grpc_addr"], listening["admin_addr"]


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
        grpc_addr, admin_addr = serve(stack, sys.argv[1], folder)
        prometheus = Prometheus(stack, folder, admin_addr)
        load = Load(grpc_addr)
        stack.callback(load.channel.close)
        # Rates need a scrape from before the load.
        until("a first scrape", lambda: prometheus.ask("user_service_build_info"))
        started = time.monotonic()
        numbers = itertools.count()
        while time.monotonic() - started < 15:
            load.round(next(numbers))
            load.crowd()

        failures = [*counts(prometheus, load), *empty(prometheus)]
        if failures:
            sys.exit("\n".join(failures))
        print(f"dashboards: {sum(load.seen.values())} calls, {len(panels())} queries and {len(rules())} rules agree")


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


def empty(prometheus: Prometheus):
    """The queries that find nothing."""
    pending = 'ALERTS{alertname="UserServiceShedding", alertstate="pending"}'
    until("the shed calls are noticed", lambda: prometheus.ask(pending))
    # The collector is away, which is noticed with its first batch.
    until("lost spans are counted", lambda: prometheus.ask('user_service_trace_spans_total{outcome="failed"} > 0'))
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
