"""The native stack of deploy/ under a small load with faults: every query of the
dashboard and of the rules finds what it asks for, the counters say what the
callers have counted, and alerts fire with their fault and not before. Usage:
live.py USER-SERVICE"""

import collections
import contextlib
import itertools
import json
import pathlib
import re
import signal
import socket
import sys
import tempfile
import time
import urllib.parse

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "deploy" / "stack"))

import native  # noqa: E402
from load import EVERYBODY, PLACES, Load, signalled  # noqa: E402
from native import until  # noqa: E402

DEPLOY = ROOT / "deploy"
# Right to be empty, or not a number, after a minute in which little went wrong.
MAY_BE_EMPTY = {
    "UserServiceAbsent": "up is there",
    "UserServiceInstanceDown": "the instance is up",
    "UserServiceRestarts": "it was started once",
    "Reads by the cache": "the store is PostgreSQL",
    "Connections policed": "peers behave",
    "UserServicePanics": "nothing panics",
    "UserServiceStoreReadOnly": "the store takes writes",
    "UserServiceSlow": "calls are fast",
    "UserServiceStoreSlow": "the store is fast",
    "UserServiceStoreQueueLong": "few writes wait",
    "UserServiceCallsNearLimit": "calls in flight come and go between two scrapes",
    "UserServiceConnectionsNearLimit": "few connections are open",
    "UserServiceFilesNearLimit": "few files are open",
}

# Where a setting is off, its metrics do not exist. tests/dashboards/alerts.py tries the
# alerts of each.
OFF = {
    "TLS handshakes": "tls_cert_file",
    "Lifetime of the certificate": "tls_cert_file",
    "Changes of TLS files": "tls_cert_file",
    "UserServiceCertificateExpires": "tls_cert_file",
    "UserServiceTlsFilesRefused": "tls_cert_file",
    "Calls denied": "auth_policy_file",
    "Keys and policy out of force": "auth_policy_file",
    "Keys and policy read": "auth_policy_file",
    "UserServiceAuthFileStale": "auth_policy_file",
    "Refused over a share": "max_calls_per_caller",
    "Audit lines lost": "audit_log",
    "UserServiceAuditLost": "audit_log",
}

CONNECTIONS = 20
# What panels look at, in the place of Grafana's own choice.
MINUTES = 5


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

    def firing(self) -> set[str]:
        return {sample["metric"]["alertname"] for sample in self.ask('ALERTS{alertstate="firing"}')}

    def must_fire(self, alert: str) -> None:
        until(f"{alert} fires", lambda: alert in self.firing())

    def must_end(self, *alerts: str, meanwhile=lambda: None) -> None:
        until(f"{' and '.join(alerts)} are over", lambda: meanwhile() or not self.firing() & set(alerts))


def hurried(text: str) -> str:
    """Somebody on call waits for minutes; a test need not. What is asked stays the same."""
    return re.sub(r"\bfor: \d+[mh]", "for: 2s", re.sub(r"interval: \d+s", "interval: 1s", text))


def panels() -> list[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana" / "user-service.json").read_text())
    chosen = {"$__rate_interval": f"{MINUTES}m", "$job": ".+", "$instance": ".+"}
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
        env = {"USERSVC_STORE_URL": store, "USERSVC_MAX_UNARY_CALLS": str(PLACES), "USERSVC_MAX_CONNECTIONS": str(CONNECTIONS),
               "USERSVC_WATCH_HEARTBEAT_MS": "3600000",
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
    socket.create_connection(load.addr).close()
    load.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    # All is well: few calls, so that few slow ones matter later.
    for _ in range(30):
        load.round(next(numbers))
        time.sleep(0.15)
    until("spans reach the trace store", lambda: native.Sink.exports > 0)
    failures = [f"{alert} fires without its fault" for alert in prometheus.firing()]

    for _ in range(12):
        load.slow(database)
    slow = {"UserServiceSlow", "UserServiceStoreSlow"}
    until(f"{slow} fire", lambda: slow <= prometheus.firing())
    failures += [f"{alert} fires while calls are slow" for alert in prometheus.firing() - slow]

    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        load.round(next(numbers))
        load.crowd()
    prometheus.must_fire("UserServiceShedding")
    prometheus.must_fire("UserServiceBudgetBurn")
    prometheus.must_end(*slow, meanwhile=lambda: load.rounds(itertools.islice(numbers, 10)))
    with load.full():
        prometheus.must_fire("UserServiceCallsNearLimit")
    prometheus.must_end("UserServiceCallsNearLimit")
    collector.kill()
    load.round(next(numbers))
    prometheus.must_fire("UserServiceSpansLost")
    failures += [*counts(prometheus, load), *messages(prometheus, load), *shown(prometheus, load), *empty(prometheus)]

    with contextlib.ExitStack() as idle:
        for _ in range(CONNECTIONS * 9 // 10):
            idle.enter_context(socket.create_connection(load.addr))
        prometheus.must_fire("UserServiceConnectionsNearLimit")
    prometheus.must_end("UserServiceConnectionsNearLimit")

    # The database says nothing, and later goes on as if nothing had been.
    signalled(database.pid, signal.SIGSTOP)
    prometheus.must_fire("UserServiceStoreReadOnly")
    signalled(database.pid, signal.SIGCONT)
    prometheus.must_end("UserServiceStoreReadOnly")
    until("calls are answered again", lambda: load.call("ListUsers", EVERYBODY) == "OK")

    held = load.held()
    # Sessions are cut, and new ones refused.
    database.send_signal(signal.SIGINT)
    prometheus.must_fire("UserServiceStoreReadOnly")
    until("calls fail without the store", lambda: load.call("ListUsers", EVERYBODY) == "Unavailable")

    # A call holds up the drain.
    until("the call is in flight", lambda: prometheus.number('grpc_server_admission_in_flight{kind="unary"}') == 1)
    process.terminate()
    until("the drain is seen", lambda: prometheus.number("sum(user_service_draining)") == 1)
    held.release()
    prometheus.must_fire("UserServiceInstanceDown")
    prometheus.must_fire("UserServiceAbsent")
    return failures


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


def messages(prometheus: Prometheus, load: Load):
    """Where messages and imported users differ from what the callers sent and got."""
    for way, counted in [("received", load.sent), ("sent", load.got)]:
        # The watch gets what comes while we look.
        of = f'grpc_server_msg_{way}_total{{grpc_service="user.v1.UserService"}} > 0'
        until(f"all messages {way} are scraped", lambda: prometheus.number(f"sum({of})") >= sum(counted.values()))
        said = {s["metric"]["grpc_method"]: int(s["value"][1]) for s in prometheus.ask(of)}
        if said != {method: count for method, count in counted.items() if count}:
            yield f"messages {way}: {said}, and {dict(counted)} by the callers"
        sizes = prometheus.number(f'sum(grpc_server_msg_{way}_bytes_count{{grpc_service="user.v1.UserService"}})')
        if sizes != sum(said.values()):
            yield f"messages {way}: {sum(said.values())} are counted and {sizes} measured"
    said = {s["metric"]["outcome"]: int(s["value"][1]) for s in prometheus.ask("user_service_imported_total")}
    if said != load.imported:
        yield f"imported: {said}, and {dict(load.imported)} by the callers"


def shown(prometheus: Prometheus, load: Load):
    """Where panels differ by more than 2% from what the callers have counted."""
    # Nothing is extrapolated beyond the last scrape, and the whole load is in the panels' range.
    last = prometheus.number("max(timestamp(grpc_server_admission_limit))")
    for title, label, part in [("Calls by method", "grpc_method", 0), ("Calls by code", "grpc_code", 1)]:
        expr = next(expr for where, expr in panels() if where == title)
        counted = collections.Counter()
        for key, count in load.seen.items():
            counted[key[part]] += count
        said = collections.Counter()
        for sample in prometheus.ask(expr, last):
            said[sample["metric"][label]] += MINUTES * 60 * float(sample["value"][1])
        for name, count in counted.items():
            if abs(said[name] - count) > 0.02 * count:
                yield f"{title}: {name} is {said[name]:.1f}, and {count} by the callers"


def empty(prometheus: Prometheus):
    """The queries that find nothing."""
    for where, expr in [*panels(), *rules()]:
        if prometheus.ask(expr):
            continue
        if where in OFF:
            continue
        if where not in MAY_BE_EMPTY:
            yield f"{where}: nothing is found by {expr}"
        elif where.startswith("UserService") and where != "UserServiceAbsent":
            for side in operands(expr):
                if not prometheus.ask(side):
                    yield f"{where}: nothing is found by {side}"


if __name__ == "__main__":
    main()
