"""Each alert fires when it should and is quiet when it should not, as promtool
sees it on made-up series. Usage: alerts.py [unittest's arguments]"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

RULES = sorted((pathlib.Path(__file__).resolve().parents[2] / "deploy" / "prometheus").glob("*.yaml"))
STEP = 30  # seconds, as the rules' own interval
MINUTE, HOUR = 60 // STEP, 3600 // STEP
DAY = 24 * HOUR
# Long spells are looked at in coarser steps, which the ratios of the rules do not notice: a hundredth of the work.
COARSE = 5 * MINUTE
TARGET = 'namespace="accounts", job="user-service", instance="a"'
GET = 'grpc_service="user.v1.UserService", grpc_method="GetUser"'

UNARY = f'{GET}, grpc_type="unary"'
IMPORT = 'grpc_service="user.v1.UserService", grpc_method="ImportUsers", grpc_type="bidi_stream"'


def series(name: str, labels: str = "", target: str = TARGET) -> str:
    return f"{name}{{{', '.join(filter(None, [target, labels]))}}}"


def handled(code: str) -> str:
    return series("grpc_server_handled_total", f'{GET}, grpc_code="{code}"')


def store_bucket(le: str) -> str:
    return series("user_service_store_operation_duration_seconds_bucket", f'operation="write", le="{le}"')


UP = series("up")
STARTED = series("grpc_server_started_total", GET)
FAST = series("grpc_server_handling_seconds_bucket", f'{UNARY}, le="0.25"')
SHED = series("grpc_server_admission_shed_total", 'kind="unary"')
IN_FLIGHT = series("grpc_server_admission_in_flight", 'kind="unary"')
OPEN = series("grpc_server_connections", 'state="open"')
START_TIME = series("process_start_time_seconds")
FILES = series("process_open_fds")
PANICS = series("grpc_server_panics_total")
WRITER_PANICS = series("user_service_store_writer_panics_total")
WRITABLE = series("user_service_store_writable")
QUEUE = series("user_service_store_queue_depth")
WATCHES = series("grpc_server_handled_total",
                 'grpc_service="user.v1.UserService", grpc_method="WatchUsers", grpc_code="Unavailable"')
NOT_AFTER = series("user_service_tls_certificate_not_after_timestamp_seconds")
REFUSED = series("user_service_tls_files_refused")
AUDIT = series("user_service_audit_lines_lost_total", 'reason="write_failed"')
STALE = series("user_service_auth_file_stale", 'file="policy"')
SPANS = series("user_service_trace_spans_total", 'outcome="failed"')

ALWAYS = f"+0x{5 * DAY}"
GROWS = f"0+1000x{5 * DAY}"
# All is well. Callers' own mistakes, probes that fail and other jobs are nothing to wake anybody for.
HEALTHY = {
    UP: f"1{ALWAYS}",
    handled("OK"): GROWS,
    handled("NotFound"): GROWS,
    handled("ResourceExhausted"): GROWS,
    handled("Unavailable"): f"0{ALWAYS}",
    series("grpc_server_handled_total", 'grpc_service="grpc.health.v1.Health", grpc_code="Unavailable"'): GROWS,
    series("grpc_server_handled_total", f'{GET}, grpc_code="Internal"', 'job="another", instance="b"'): GROWS,
    STARTED: GROWS,
    FAST: GROWS,
    series("grpc_server_handling_seconds_count", UNARY): GROWS,
    SHED: f"0{ALWAYS}",
    IN_FLIGHT: f"10{ALWAYS}",
    series("grpc_server_admission_limit", 'kind="unary"'): f"100{ALWAYS}",
    OPEN: f"50{ALWAYS}",
    series("grpc_server_connections", 'state="closing"'): f"25{ALWAYS}",
    series("grpc_server_connections_limit"): f"100{ALWAYS}",
    START_TIME: f"7{ALWAYS}",
    FILES: f"80{ALWAYS}",
    series("process_max_fds"): f"100{ALWAYS}",
    PANICS: f"0{ALWAYS}",
    WRITER_PANICS: f"0{ALWAYS}",
    WRITABLE: f"1{ALWAYS}",
    store_bucket("0.1"): GROWS,
    series("user_service_store_operation_duration_seconds_count", 'operation="write"'): GROWS,
    QUEUE: f"10{ALWAYS}",
    series("user_service_store_queue_limit"): f"100{ALWAYS}",
    SPANS: f"0{ALWAYS}",
    # promtool's clock begins at 0.
    series("user_service_tls_certificate_not_before_timestamp_seconds"): f"0{ALWAYS}",
    NOT_AFTER: f"{90 * DAY * STEP}{ALWAYS}",
    REFUSED: f"0{ALWAYS}",
}


def failing(*spells: tuple[int, int]) -> dict[str, str]:
    """A thousand calls a step, and how many of them fail for how many steps."""
    ok, failed, texts = 0, 0, ([], [])
    for steps, faults in spells:
        texts[0].append(f"{ok}+{1000 - faults}x{steps - 1}")
        texts[1].append(f"{failed}+{faults}x{steps - 1}")
        ok, failed = ok + (1000 - faults) * steps, failed + faults * steps
    none = f"0{ALWAYS}"
    return {
        handled("OK"): " ".join(texts[0]),
        handled("Unavailable"): " ".join(texts[1]),
        handled("NotFound"): none,
        handled("ResourceExhausted"): none,
    }


def burns(*windows: str) -> set[str]:
    severity = {"1h": "critical", "6h": "critical", "1d": "warning", "3d": "warning"}
    return {f"UserServiceBudgetBurn {severity[window]} {window}" for window in windows}


# What happens, to which series, how many steps later we look, and what then fires: that, and nothing else.
CASES = [
    ("all is well", {}, 6 * HOUR, set()),
    ("1.5% of calls fail for two hours", failing((3 * HOUR, 15)), 2 * HOUR, burns("1h", "6h", "1d")),
    ("1.5% of calls have failed for two minutes", failing((3 * HOUR, 15)), 2 * MINUTE, set()),
    ("1% of calls fail for two hours", failing((3 * HOUR, 10)), 2 * HOUR, burns("6h", "1d")),
    ("0.4% of calls fail for eight hours", failing((9 * HOUR, 4)), 8 * HOUR, burns("1d", "3d")),
    ("0.2% of calls fail for eight hours", failing((9 * HOUR, 2)), 8 * HOUR, burns("3d")),
    ("0.2% of calls fail in the fourth day", failing((3 * DAY, 0), (1 * DAY, 2)), 4 * DAY - COARSE, set()),
    ("0.2% of calls fail in the last two of four days",
     failing((2 * DAY, 0), (2 * DAY, 2)), 4 * DAY - COARSE, burns("3d")),
    ("0.1% of calls fail for three days: just what may fail", failing((4 * DAY, 1)), 3 * DAY, set()),
    ("an outage of an hour began two days in", failing((2 * DAY, 0), (HOUR, 1000), (DAY, 0)),
     2 * DAY + HOUR - COARSE, burns("1h", "6h")),
    ("an outage of an hour was over an hour ago", failing((2 * DAY, 0), (HOUR, 1000), (DAY, 0)),
     2 * DAY + 2 * HOUR, burns("1d")),
    ("an outage of an hour was over half a day ago", failing((2 * DAY, 0), (HOUR, 1000), (DAY, 0)),
     2 * DAY + 13 * HOUR, set()),
    ("nine of few calls fail in an hour", {
        handled("OK"): f"0+0x{6 * HOUR}", handled("NotFound"): f"0+1x{6 * HOUR}",
        handled("ResourceExhausted"): f"0+0x{6 * HOUR}",
        handled("Unavailable"): f"0x{2 * HOUR} 0+1x8 9x{HOUR}",
    }, 2 * HOUR + 9 * MINUTE, set()),
    ("watches end with their connections", {WATCHES: GROWS}, 6 * HOUR, set()),
    ("imports end with their connections", {WATCHES.replace("WatchUsers", "ImportUsers"): GROWS}, 6 * HOUR, set()),
    ("nobody can be scraped", {UP: f"0{ALWAYS}"}, 6 * MINUTE, {"UserServiceAbsent critical"}),
    ("nobody is there", {UP: "_"}, 6 * MINUTE, {"UserServiceAbsent critical"}),
    ("nobody could be scraped for four minutes", {UP: f"1x{HOUR} 0x7 1x{HOUR}"}, HOUR + 7, set()),
    ("one of two cannot be scraped",
     {series("up", "", 'namespace="accounts", job="user-service", instance="b"'): f"0{ALWAYS}"}, 11 * MINUTE,
     {"UserServiceInstanceDown warning"}),
    ("three restarts in half an hour", {START_TIME: "1x10 2x10 3x10 4x100"}, 35, {"UserServiceRestarts warning"}),
    ("two restarts in half an hour", {START_TIME: "1x10 2x10 3x100"}, 35, set()),
    ("a tenth of the answers take long", {FAST: f"0+900x{DAY}"}, 12 * MINUTE, {"UserServiceSlow warning"}),
    ("one in a hundred answers takes long", {FAST: f"0+990x{DAY}"}, 12 * MINUTE, set()),
    ("imports take long, as they may", {
        series("grpc_server_handling_seconds_count", IMPORT): GROWS,
        series("grpc_server_handling_seconds_bucket", f'{IMPORT}, le="0.25"'): f"0{ALWAYS}",
    }, 12 * MINUTE, set()),
    ("2% of calls are turned away", {SHED: f"0+20x{DAY}"}, 7 * MINUTE, {"UserServiceShedding critical"}),
    ("0.1% of calls are turned away", {SHED: f"0+1x{DAY}"}, 7 * MINUTE, set()),
    ("nearly as many calls as may be", {IN_FLIGHT: f"90x{DAY}"}, 11 * MINUTE, {"UserServiceCallsNearLimit warning"}),
    ("many calls for nine minutes", {IN_FLIGHT: f"90x17 10x{DAY}"}, 11 * MINUTE, set()),
    ("nearly as many connections as may be", {OPEN: f"60x{DAY}"}, 11 * MINUTE,
     {"UserServiceConnectionsNearLimit warning"}),
    ("nearly as many files as may be", {FILES: f"95x{DAY}"}, 11 * MINUTE, {"UserServiceFilesNearLimit warning"}),
    ("a call panics", {PANICS: f"0x20 1x{DAY}"}, 22, {"UserServicePanics warning"}),
    ("the store's writer panics", {WRITER_PANICS: f"0x20 1x{DAY}"}, 22, {"UserServicePanics warning"}),
    ("a store has no writer, and a call panics", {WRITER_PANICS: "_", PANICS: f"0x20 1x{DAY}"}, 22, {"UserServicePanics warning"}),
    ("a call panicked an hour ago", {PANICS: f"0x20 1x{DAY}"}, 20 + HOUR, set()),
    ("the store takes no writes", {WRITABLE: f"0x{DAY}"}, 2 * MINUTE, {"UserServiceStoreReadOnly critical"}),
    ("the store took no writes for a moment", {WRITABLE: f"1x5 0 1x{DAY}"}, 7, set()),
    ("a tenth of the writes take long", {store_bucket("0.1"): f"0+900x{DAY}"}, 12 * MINUTE,
     {"UserServiceStoreSlow warning"}),
    ("one write in a hundred takes long", {store_bucket("0.1"): f"0+990x{DAY}"}, 12 * MINUTE, set()),
    ("a certificate of a day has an hour left", {NOT_AFTER: f"{DAY * STEP}{ALWAYS}"}, DAY - HOUR,
     {"UserServiceCertificateExpires warning", "UserServiceCertificateExpires critical"}),
    ("a certificate of a day has three hours left", {NOT_AFTER: f"{DAY * STEP}{ALWAYS}"}, DAY - 3 * HOUR,
     {"UserServiceCertificateExpires warning"}),
    ("a certificate of a day has eight hours left", {NOT_AFTER: f"{DAY * STEP}{ALWAYS}"}, DAY - 8 * HOUR, set()),
    ("TLS files are refused", {REFUSED: f"1x{DAY}"}, 6 * MINUTE, {"UserServiceTlsFilesRefused warning"}),
    ("TLS files were refused for a moment", {REFUSED: f"0x5 1x4 0x{DAY}"}, 12, set()),
    ("writes pile up", {QUEUE: f"60x{DAY}"}, 6 * MINUTE, {"UserServiceStoreQueueLong warning"}),
    ("writes pile up for a moment", {QUEUE: f"10x5 90x5 10x{DAY}"}, 12, set()),
    ("the collector is away", {SPANS: f"0+10x{DAY}"}, 20 * MINUTE, {"UserServiceSpansLost info"}),
    ("the collector is too slow", {SPANS.replace("failed", "dropped"): f"0+10x{DAY}"}, 20 * MINUTE,
     {"UserServiceSpansLost info"}),
    ("an audit line cannot be written", {AUDIT: f"0x20 1x{DAY}"}, 22, {"UserServiceAuditLost critical"}),
    ("an audit line was lost an hour ago", {AUDIT: f"0x20 1x{DAY}"}, 20 + HOUR, set()),
    ("the policy cannot be used", {STALE: f"1x{DAY}"}, 3 * MINUTE, {"UserServiceAuthFileStale warning"}),
    ("the policy could not be used for a minute", {STALE: f"1x2 0x{DAY}"}, 4 * MINUTE, set()),
    ("the collector was away for a while", {SPANS: f"0+10x10 100x{DAY}"}, HOUR, set()),
]


def promtool_test(changed: dict[str, str], at: int, firing: set[str]) -> dict:
    values = HEALTHY | changed
    return {
        "interval": f"{STEP}s",
        "input_series": [{"series": name, "values": text} for name, text in values.items()],
        "promql_expr_test": [{
            "expr": 'label_join(count by (alertname, severity, window) (ALERTS{alertstate="firing"}),'
                    ' "alert", " ", "alertname", "severity", "window")',
            "eval_time": f"{at * STEP}s",
            "exp_samples": [{"labels": labels(alert), "value": 1} for alert in sorted(firing)],
        }],
    }


def labels(alert: str) -> str:
    name, severity, *window = alert.split()
    text = f'alertname="{name}", severity="{severity}"' + "".join(f', window="{w}"' for w in window)
    return f'{{alert="{alert if window else alert + " "}", {text}}}'


def tried(case: tuple) -> subprocess.CompletedProcess:
    """What promtool says of a case."""
    _, changed, at, firing = case
    every = STEP * (COARSE if at > 3 * HOUR else 1)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"rule_files": [str(path) for path in RULES], "evaluation_interval": f"{every}s",
                        "tests": [promtool_test(changed, at, firing)]}, file)
        return subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)


class Alerts(unittest.TestCase):
    def test_each_alert_fires_when_it_should_and_only_then(self):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for (what, *_), ran in zip(CASES, pool.map(tried, CASES)):
                with self.subTest(what):
                    self.assertEqual(ran.returncode, 0, f"{what}: {ran.stdout}{ran.stderr}")

    def test_each_alert_has_a_case_in_which_it_fires(self):
        proved = set().union(*(firing for _, _, _, firing in CASES))
        text = "".join(path.read_text() for path in RULES)
        for name in re.findall(r"alert: (\w+)", text):
            self.assertTrue(any(alert.startswith(name + " ") for alert in proved), name)

    def test_promtool_finds_no_fault_in_the_rules(self):
        subprocess.run(["promtool", "check", "rules", "--lint-fatal", *map(str, RULES)], check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main()
