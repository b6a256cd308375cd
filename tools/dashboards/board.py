"""The board: one row for each question that somebody on call asks, in that order."""

import re

import slo
from panels import JOB, METHOD_LEGEND, ON, SOURCE, WIDTH, figure, heat, lines, names
from rules import CALLS, FAULTS, lifetime_left

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync, VariableOption, VariableRefresh, VariableSort,
)

API, UNARY = f"{ON}, {slo.API}", f"{ON}, {slo.UNARY}"
RATE = "[$__rate_interval]"
METHOD = "grpc_service, grpc_method"
ON_POSTGRES, ON_SQLITE, WITH_TLS = "The store is not PostgreSQL.", "The store is not SQLite.", "The port has no TLS."
ON_POLICY = "There is no policy."
# Green went well, blue is a caller's own, red and orange count against the objective.
CODE_COLORS = {
    "OK": "green", "Canceled": "super-light-blue", "InvalidArgument": "light-blue", "NotFound": "blue",
    "AlreadyExists": "semi-dark-blue", "Aborted": "dark-blue", "FailedPrecondition": "light-purple", "OutOfRange": "purple",
    "ResourceExhausted": "yellow", "Unimplemented": "dark-yellow", "Unavailable": "red", "DeadlineExceeded": "orange",
    "Unauthenticated": "super-light-purple", "PermissionDenied": "semi-dark-purple",
    "Internal": "dark-red", "Unknown": "dark-orange", "DataLoss": "dark-purple",
}

# Green went well, blue is a peer that went or spoke something else, red is a certificate that is refused.
HANDSHAKE_COLORS = {
    "ok": "green", "closed": "super-light-blue", "timeout": "light-blue", "evicted": "semi-dark-blue", "not_tls": "blue",
    "alpn": "dark-blue", "incompatible": "light-purple", "protocol": "purple", "alert": "orange", "no_certificate": "yellow",
    "certificate_expired": "light-red", "certificate_untrusted": "red", "certificate_unusable": "dark-red",
}
RELOAD_COLORS = {"live": "green", "refused": "orange", "refused now": "red"}


def rate(metric: str, by: str = "", where: str = ON) -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{where}}}{RATE}))"


def some(metric: str, by: str, where: str = ON) -> str:
    """Without the many series in which nothing happens: counters are there from the start."""
    return f"{rate(metric, by, where)} > 0"


def quantile(q: float, histogram: str, by: str = "", where: str = ON) -> str:
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', ', '.join(filter(None, ['le', by])), where)})"


def burn(window: str) -> str:
    """As recorded for the alerts, but of the chosen instances alone."""
    faults, calls = (slo.over(series, f"{{{ON}}}", window) for series in (FAULTS, CALLS))
    return f"sum ({faults}) / sum ({calls}) / {slo.BUDGET}"


def objective():
    colors = [(None, "red"), (0, "orange"), (0.25, "green")]
    # An alert about a whole job has no instance.
    alerts = f'ALERTS{{{JOB}, instance=~"$instance|", alertname=~"UserService.+"}}'
    yield figure(
        "Error budget left", f"Of the failures that {slo.OBJECTIVE:.1%} in 30 days allows, how many are left.",
        "percentunit", f"1 - ({burn('30d')})", colors=colors)
    yield figure(
        "Answered", f"The share of calls in 30 days that did not fail through a fault of the service; {slo.OBJECTIVE:.1%} is the objective.",
        "percentunit", f"1 - ({burn('30d')}) * {slo.BUDGET}", decimals=3, colors=[(None, "red"), (slo.OBJECTIVE, "green")])
    yield figure(
        "Calls", "Calls a second that count for the objective: of the API, without health and reflection.",
        "reqps", f"sum ({CALLS}{{{ON}}})")
    yield names(
        "Alerts", "Alerts that fire, in red, and in orange those that will unless it gets better.",
        f"count by (alertname, severity, alertstate) ({alerts})", "{{alertname}}: {{severity}}, {{alertstate}}", span=9,
        colors={"/firing$/": "red", "/pending$/": "orange"}, no_value="None")
    yield lines(
        "Budget burn by window",
        "How many times as fast as allowed the budget goes. Alerts: 14.4 over 1h, 6 over 6h, 3 over 1d, 1 over 3d.",
        "short", *((burn(window), window) for window in ["5m", "1h", "6h", "1d", "3d"]), span=WIDTH,
        marks=[(1, "yellow"), (3, "orange"), (6, "red"), (14.4, "dark-red")])


def calls():
    handled, handling = "grpc_server_handled_total", "grpc_server_handling_seconds"
    faults = slo.faults(ON, "$__rate_interval", f"by ({METHOD})")
    yield lines("Calls by method", "Calls that began.", "reqps",
                (some("grpc_server_started_total", METHOD, API), METHOD_LEGEND))
    yield lines("Calls by code", "Calls that ended, by the code they ended with.", "reqps",
                (some(handled, "grpc_code", API), "{{grpc_code}}"), stacked=True, colors=CODE_COLORS)
    yield lines("Failed through the service", "The share of each method's calls that count against the objective.",
                "percentunit", (f"{faults} / ({some(handled, METHOD, API)})", METHOD_LEGEND), rare=True)
    yield heat("Latency", "How long unary calls took that ended OK.", "s",
               f"sum by (le) (increase({handling}_bucket{{{UNARY}}}{RATE}))")
    yield lines("Latency of calls that ended OK", "Half, 95% and 99% of the unary calls took no longer; an alert fires where 5% take over 250 ms.", "s",
                *((quantile(q, handling, where=UNARY), name) for q, name in [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")]),
                span=12, marks=[(0.25, "red")])
    yield lines("Latency by method, p99", "99% of the unary calls that ended OK took no longer.", "s",
                (quantile(0.99, handling, METHOD, UNARY), METHOD_LEGEND), span=12)
    yield lines("Latency by code, p99", "99% of the unary calls with this code took no longer; failures are told from answers.",
                "s", (quantile(0.99, "rpc_server_call_duration_seconds", "rpc_response_status_code",
                               f'{ON}, rpc_method=~"(user[.]v1[.])?UserService/.+", rpc_method!~".+/(WatchUsers|ImportUsers)"'), "{{rpc_response_status_code}}"),
                span=12, colors={re.sub("(?<=[a-z])(?=[A-Z])", "_", code).upper().replace("CANCELED", "CANCELLED"): color
                                 for code, color in CODE_COLORS.items()})


def streams():
    streaming = f'{ON}, grpc_type!="unary"'
    others = f'{ON}, grpc_service!~"user[.]v1[.]UserService|UserService"'
    yield lines("Messages received", "Messages from callers.", "mps",
                (some("grpc_server_msg_received_total", METHOD, API), METHOD_LEGEND))
    yield lines("Messages sent", "Messages to callers.", "mps",
                (some("grpc_server_msg_sent_total", METHOD, API), METHOD_LEGEND))
    yield lines("Streams open", "Streaming calls in flight: watches, health watches and reflection.", "short",
                (f"sum by ({METHOD}) (grpc_server_calls_in_flight{{{streaming}}}) > 0", METHOD_LEGEND))
    for way in ["received", "sent"]:
        size = f"grpc_server_msg_{way}_bytes"
        yield lines(f"Size of messages {way}", "99% were no larger, by method; and the mean over all.", "bytes",
                    (quantile(0.99, size, METHOD, API), METHOD_LEGEND + " p99"),
                    (f"{rate(size + '_sum', where=API)} / {rate(size + '_count', where=API)}", "mean"), span=12)
    yield lines("Streams ended by code", "Streaming calls that ended.", "reqps",
                (some("grpc_server_handled_total", "grpc_code", streaming), "{{grpc_code}}"), span=12, stacked=True, colors=CODE_COLORS)
    yield lines("Calls that are not of the API", "Health, reflection, and paths that nothing is served under.", "reqps",
                (some("grpc_server_started_total", METHOD, others), METHOD_LEGEND), span=12)


def saturation():
    connections = "grpc_server_connections"
    by_instance = "{{instance}}"
    where = "namespace, job, instance"
    yield lines("Limits in use", "How much of each limit the instance has in use that is nearest to it. Alerts fire from 50% of the "
                "writes that may wait, 80% of calls and connections, and 90% of files.", "percentunit",
                (f"max by (kind) (grpc_server_admission_in_flight{{{ON}}} / grpc_server_admission_limit{{{ON}}})", "calls: {{kind}}"),
                (f"max (sum by ({where}) ({connections}{{{ON}}}) / on ({where}) {connections}_limit{{{ON}}})", "connections"),
                (f"max (user_service_store_queue_depth{{{ON}}} / user_service_store_queue_limit{{{ON}}})", "writes that wait"),
                (f"max (process_open_fds{{{ON}}} / process_max_fds{{{ON}}})", "files"),
                span=WIDTH, rare=True, marks=[(0.5, "yellow"), (0.8, "orange"), (0.9, "red")])
    yield lines("Calls in flight", "Calls that count against the limits; those that write are unary as well.", "short",
                (f"sum by (kind) (grpc_server_admission_in_flight{{{ON}}})", "{{kind}}"))
    yield lines("Calls by protocol", "What callers speak.", "reqps",
                (rate("user_service_protocol_calls_total", "protocol"), "{{protocol}}"), stacked=True)
    yield lines("Calls turned away", "Answered UNAVAILABLE, because the limit was reached.", "reqps",
                (rate("grpc_server_admission_shed_total", "kind"), "{{kind}}"), rare=True)
    yield lines("Calls that went wrong inside", "Panics of calls and of the store's writer, and calls cut with their connection by its age or a drain.",
                "reqps", (rate("grpc_server_panics_total"), "panics"), (rate("user_service_store_writer_panics_total"), "panics of the writer"),
                (rate("grpc_server_calls_cut_total"), "cut"), rare=True)
    yield lines("Connections", "By what they are at, and by what they speak.", "short",
                (f"sum by (state) ({connections}{{{ON}}})", "{{state}}"),
                (f"sum by (protocol) (user_service_open_connections{{{ON}}})", "{{protocol}}"))
    yield lines("Connections that came", "Accepted, refused over the limit, and failed to be accepted.", "cps",
                *((rate(f"grpc_server_connections_{name}_total"), name) for name in ["accepted", "refused"]),
                (rate("user_service_admin_connections_refused_total"), "refused, admin"),
                (rate("user_service_accept_errors_total", "port"), "errors, {{port}}"))
    yield lines("Connections that went", "Why they ended.", "cps",
                (some(f"{connections}_closed_total", "reason"), "{{reason}}"), stacked=True)
    yield lines("Lingering closes", "How closes of connections ended; `unacknowledged` are answers that peers may not have.", "cps",
                (some("user_service_lingering_closes_total", "port, outcome"), "{{port}} {{outcome}}"), stacked=True)
    yield lines("TLS handshakes", "By outcome: `ok`, or why they failed.", "cps",
                (some("grpc_server_tls_handshakes_total", "outcome"), "{{outcome}}"), stacked=True, colors=HANDSHAKE_COLORS,
                no_value=WITH_TLS)
    yield lines("Lifetime of the certificate", "The share that is left; alerts fire below 20% and 5%.", "percentunit",
                (lifetime_left(f"{{{ON}}}"), by_instance), marks=[(0.05, "red"), (0.2, "orange")], no_value=WITH_TLS)
    yield lines("Changes of TLS files", "Sets of files that went live or were refused, and instances whose files are refused now.",
                "short", (f"sum by (outcome) (increase(user_service_tls_reloads_total{{{ON}}}{RATE}))", "{{outcome}}"),
                (f"sum (user_service_tls_files_refused{{{ON}}})", "refused now"), colors=RELOAD_COLORS, no_value=WITH_TLS)
    yield lines("Connections policed", "Ended because their peer sent too many frames that cost work, by the kind that cost most.", "cps",
                (some("user_service_policed_connections_total", "port, frames"), "{{port}} {{frames}}"), stacked=True,
                no_value="No connection was policed.")
    lag = "user_service_event_loop_lag_seconds"
    yield lines("Lag of serving threads", "How late they woke for a timer; some 1 ms is the timer's own.", "s",
                (quantile(0.99, lag), "p99"), (f"{rate(lag + '_sum')} / {rate(lag + '_count')}", "mean"))
    yield lines("Writes that wait", "Writes in the queue of the store's writer.", "short",
                (f"user_service_store_queue_depth{{{ON}}}", by_instance))
    yield lines("Time of a commit", "What a commit took lately; the queue takes a write only if its commit can end in time.", "s",
                (f"user_service_store_commit_seconds{{{ON}}}", by_instance))
    yield lines("Writes refused", "Not begun, because they could not be durable in time.", "reqps",
                (rate("user_service_store_writes_refused_total", "reason"), "{{reason}}"), rare=True)
    yield lines("Reads that wait", "Reads of one user on PostgreSQL, and larger reads, that wait for their turn; how many larger ones may, by what they took lately.",
                "short", (f"user_service_store_reads{{state=\"queued\", {ON}}}", by_instance),
                (f"min (user_service_store_read_queue_limit{{{ON}}})", "limit"))
    yield lines("Time of a larger read", "What a batch or a page took lately; one is taken only if it can end in time.", "s",
                (f"user_service_store_read_seconds{{{ON}}}", by_instance))
    yield lines("Larger reads refused", "Batches and pages that were not begun, because they would not end in time.", "reqps",
                (rate("user_service_store_reads_refused_total", "reason"), "{{reason}}"), rare=True)
    yield lines("CPU", "CPUs kept busy.", "short", (rate("process_cpu_seconds_total", "instance"), by_instance))
    yield lines("Memory", "Memory that is resident.", "bytes", (f"process_resident_memory_bytes{{{ON}}}", by_instance))
    yield lines("Files", "File descriptors that are open.", "short", (f"process_open_fds{{{ON}}}", by_instance))


def callers():
    yield lines("Calls denied", "Calls without the right to be made, by reason: what is wrong with their token, or that they may not.",
                "reqps", (some("user_service_denials_total", "reason"), "{{reason}}"), rare=True, no_value="No call was denied.")
    yield lines("Refused over a share", "Calls and connections of callers that have their share already, by limit.", "reqps",
                (rate("user_service_quota_refused_total", "limit"), "{{limit}}"), rare=True,
                no_value="No share is set.")
    yield lines("Audit lines lost", "Audit lines that were not written, by reason; an alert fires for one.", "cps",
                (rate("user_service_audit_lines_lost_total", "reason"), "{{reason}}"), rare=True,
                no_value="audit_log is off.")
    yield lines("Keys and policy out of force", "Instances whose policy or keys cannot be used, so that older ones are in force; an alert fires for one.",
                "short", (f"sum by (file) (user_service_auth_file_stale{{{ON}}})", "{{file}}"), span=12, rare=True,
                no_value=ON_POLICY)
    yield lines("Keys and policy read", "Changes of policy and keys, by outcome.", "short",
                (f"sum by (file, outcome) (increase(user_service_auth_reloads_total{{{ON}}}{RATE}))", "{{file}} {{outcome}}"),
                span=12, rare=True, no_value=ON_POLICY)


def watches():
    by_instance, delay = "{{instance}}", "user_service_feed_delay_seconds"
    buffer = "user_service_feed_buffer"
    yield lines("Watches", "Watches that are open.", "short", (f"user_service_watches{{{ON}}}", by_instance))
    yield lines("Watches cut", "Ended as they were too slow, as their log was cleared away, or as the store was away.", "ops",
                (rate("user_service_watches_cut_total", "reason"), "{{reason}}"), rare=True)
    yield lines("Delay of the feed", "How old changes were when they were read for watches.", "s",
                (quantile(0.5, delay), "p50"), (quantile(0.99, delay), "p99"))
    yield lines("Slowest watch", "How many changes it is behind, of those that are served from the buffer.", "short",
                (f"user_service_feed_lag_changes{{{ON}}}", by_instance), span=12)
    yield lines("Buffer of the feed", "What the latest changes weigh; what no longer fits is no longer waited for.", "bytes",
                (f"{buffer}_bytes{{{ON}}}", by_instance), (f"min ({buffer}_limit_bytes{{{ON}}})", "limit"),
                span=12)


def rollout():
    yield lines("Instances by version", "Which versions run.", "short",
                (f"count by (version) (user_service_build_info{{{ON}}})", "{{version}}"), stacked=True)
    yield lines("Instances that answer", "How many Prometheus could scrape, of those that it knows.", "short",
                (f"sum (up{{{ON}}})", "answer"), (f"count (up{{{ON}}})", "known"))
    yield lines("Health", "How many instances have each health name SERVING, and how many are draining.", "short",
                (f"sum by (name) (user_service_health_serving{{{ON}}})", "{{name}}"),
                (f"sum (user_service_draining{{{ON}}})", "draining"))
    yield lines("Uptime", "Since when each process runs.", "dtdhms",
                (f"time() - process_start_time_seconds{{{ON}}}", "{{instance}}"), span=12)
    yield lines("Restarts", "How often each instance was restarted in the last hour.", "short",
                (f"changes(process_start_time_seconds{{{ON}}}[1h])", "{{instance}}"), span=12)


def dependencies():
    took, batch = "user_service_store_operation_duration_seconds", "user_service_store_batch_size"
    yield lines("Operations of the store", "Operations that ended.", "ops",
                (rate(f"{took}_count", "operation"), "{{operation}}"))
    yield lines("Latency of the store, p99", "99% of the operations took no longer; an alert fires where 5% take over 100 ms.", "s",
                (quantile(0.99, took, "operation"), "{{operation}}"), marks=[(0.1, "red")])
    yield lines("Store takes writes", "Instances whose store takes writes, of all.", "short",
                (f"sum (user_service_store_writable{{{ON}}})", "take writes"),
                (f"count (user_service_store_writable{{{ON}}})", "instances"))
    yield lines("Writes in one commit", "How many writes share the cost of one commit: the mean, and p99.", "short",
                (f"{rate(batch + '_sum')} / {rate(batch + '_count')}", "mean"), (quantile(0.99, batch), "p99"))
    connections = "user_service_store_connections"
    yield lines("Connections to PostgreSQL", "Open ones by use, and how many there are when all is well.", "short",
                (f"sum by (use) ({connections}{{{ON}}})", "{{use}}"),
                (f"sum by (use) ({connections}_limit{{{ON}}})", "{{use}} limit"), no_value=ON_POSTGRES)
    yield lines("Reads of the store", "Reads of PostgreSQL and larger ones of SQLite: those that run, and those that wait for their turn.",
                "short", (f"sum by (state) (user_service_store_reads{{{ON}}})", "{{state}}"))
    yield lines("Attempts on PostgreSQL", "Attempts to connect, by outcome; and operations that were made again.", "ops",
                (rate("user_service_store_connects_total", "outcome"), "connect {{outcome}}"),
                (rate("user_service_store_retries_total", "operation"), "{{operation}} again"), rare=True,
                no_value=ON_POSTGRES)
    yield lines("Reads by the cache", "Reads of one user, by whether the cache of SQLite had it.", "reqps",
                (rate("user_service_store_cache_lookups_total", "result"), "{{result}}"), stacked=True, no_value=ON_SQLITE)
    yield lines("Spans and log lines",
                "Spans by what became of them, none where no collector is set; and log lines that nobody took in time.",
                "cps", (rate("user_service_trace_spans_total", "outcome"), "spans {{outcome}}"),
                (rate("user_service_log_lines_dropped_total"), "log lines dropped"))


ROWS = [
    ("Objective", objective),
    ("Calls: rate, errors, duration", calls),
    ("Streams and messages", streams),
    ("Saturation", saturation),
    ("Callers", callers),
    ("Watches", watches),
    ("Rollout", rollout),
    ("Dependencies", dependencies),
]


def variable(name: str, label: str, query: str) -> QueryVariable:
    chosen = VariableOption(selected=True, text="All", value="$__all")
    asked = QueryVariable(name).label(label).datasource(SOURCE).query(query).multi(True).include_all(True)
    return asked.all_value(".+").current(chosen).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        VariableSort.ALPHABETICAL_ASC)


def board():
    made = Dashboard("User service").uid("user-service").tags(["user-service", "grpc"]).readonly()
    made.description("What an engineer on call asks of user-service. Generated; changes belong into tools/dashboards.")
    made.tooltip(DashboardCursorSync.CROSSHAIR).refresh("30s").time("now-1h", "now").timezone("browser")
    made.with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    made.with_variable(variable("job", "Job", "label_values(user_service_build_info, job)"))
    made.with_variable(
        variable("instance", "Instance", f'label_values(user_service_build_info{{{JOB}}}, instance)'))
    for title, panels in ROWS:
        made.with_row(Row(title))
        for panel in panels():
            made.with_panel(panel)
    return made.build()
