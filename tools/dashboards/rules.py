"""The rules of Prometheus: what is recorded, and what wakes somebody."""

import slo
from slo import WHERE

ON = f"{{{WHERE}}}"
BY = "by (namespace, job)"
CALLS = "instance:user_service_calls:rate5m"
FAULTS = "instance:user_service_faults:rate5m"
# As a share, because a certificate may last for an hour or for a year.
NOT_AFTER = "user_service_tls_certificate_not_after_timestamp_seconds"
NOT_BEFORE = "user_service_tls_certificate_not_before_timestamp_seconds"


def recorded() -> list[dict]:
    by = "by (namespace, job, instance)"
    rules = [
        record(CALLS, f"sum {by} (rate(grpc_server_handled_total{{{WHERE}, {slo.API}}}[5m]))"),
        record(FAULTS, slo.faults(WHERE, "5m", by)),
    ]
    for window in slo.WINDOWS:
        faults, calls = (slo.over(series, ON, window) for series in (FAULTS, CALLS))
        rules.append(record(
            f"job:user_service_budget_burn:{window}",
            f"sum {BY} ({faults})\n  / sum {BY} ({calls})\n  / {slo.BUDGET}",
        ))
    for burn in slo.BURNS:
        rules.append(record(
            f"job:user_service_faults:{burn.long}",
            f"sum {BY} ({slo.over(FAULTS, ON, burn.long)}) * {slo.EVERY_SECONDS}",
        ))
    return rules


def burn_alerts() -> list[dict]:
    return [
        alert(
            "UserServiceBudgetBurn",
            f"job:user_service_budget_burn:{burn.long}{ON} > {burn.factor}\n"
            f"  and job:user_service_budget_burn:{burn.short}{ON} > {burn.factor}\n"
            f"  and job:user_service_faults:{burn.long}{ON} >= {slo.FEWEST_FAULTS}",
            burn.hold,
            burn.severity,
            "Calls fail {{ $value | humanize }} times as fast as the objective allows",
            f"More than {burn.spent}; the objective is {slo.OBJECTIVE:.1%} of calls in 30 days.",
            window=burn.long,
        )
        for burn in slo.BURNS
    ]


def symptom_alerts() -> list[dict]:
    shed = f"sum {BY} (rate(grpc_server_admission_shed_total{ON}[5m]))"
    started = f"sum {BY} (rate(grpc_server_started_total{{{WHERE}, {slo.API}}}[5m]))"
    return [
        alert(
            # Both sides say whose job it is.
            "UserServiceAbsent", f"sum {BY} (up{ON}) == 0 or absent(up{ON})", "5m", "critical",
            "No instance answers Prometheus",
            "Nobody is served, or nobody is watched: no target of the job could be scraped.",
        ),
        alert(
            "UserServiceInstanceDown", f"up{ON} == 0", "10m", "warning",
            "{{ $labels.instance }} does not answer Prometheus",
            "The other instances serve what this one does not.",
        ),
        alert(
            "UserServiceRestarts", f"changes(process_start_time_seconds{ON}[30m]) > 2", "0m", "warning",
            "{{ $labels.instance }} was restarted {{ $value }} times in half an hour",
            "It crashes, runs out of memory, or its liveness probe fails.",
        ),
        alert(
            "UserServiceSlow", slow("grpc_server_handling_seconds", f"{WHERE}, {slo.UNARY}", "namespace, job", "0.25"),
            "10m", "warning",
            "{{ $value | humanizePercentage }} of the unary calls that succeed take over 250 ms",
            "Callers wait; those with short deadlines fail.",
        ),
        alert(
            "UserServiceShedding", f"{shed} / {started} > 0.01", "5m", "critical",
            "{{ $value | humanizePercentage }} of calls are turned away",
            "More calls are in flight than the limits allow; callers get UNAVAILABLE.",
        ),
        alert(
            "UserServiceCallsNearLimit",
            f"grpc_server_admission_in_flight{ON} / grpc_server_admission_limit{ON} > 0.8", "10m", "warning",
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the {{ $labels.kind }} calls it may have",
            "At the limit calls are turned away.",
        ),
        alert(
            "UserServiceConnectionsNearLimit",
            f"sum by (namespace, job, instance) (grpc_server_connections{ON}) "
            f"/ on (namespace, job, instance) grpc_server_connections_limit{ON} > 0.8", "10m", "warning",
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the connections it may have",
            "At the limit new connections are closed at once.",
        ),
        alert(
            "UserServiceFilesNearLimit", f"process_open_fds{ON} / process_max_fds{ON} > 0.9", "10m", "warning",
            "{{ $labels.instance }} has {{ $value | humanizePercentage }} of the files open that it may open",
            "At the limit neither connections nor the store's file can be opened.",
        ),
        alert(
            "UserServiceCertificateExpires", f"{lifetime_left(ON)} < 0.2", "10m", "warning",
            "The certificate of {{ $labels.instance }} has {{ $value | humanizePercentage }} of its lifetime left",
            "Whatever renews it has not done so. Once it has expired, clients refuse to connect.",
        ),
        alert(
            "UserServiceCertificateExpires", f"{lifetime_left(ON)} < 0.05", "1m", "critical",
            "The certificate of {{ $labels.instance }} is about to expire: {{ $value | humanizePercentage }} of its lifetime is left",
            "Once it has expired, clients refuse to connect.",
        ),
        alert(
            "UserServiceTlsFilesRefused", f"user_service_tls_files_refused{ON} == 1", "5m", "warning",
            "{{ $labels.instance }} refuses its TLS files and goes on with earlier ones",
            "Connections are made as before, until the earlier certificate expires or the instance restarts.",
        ),
        alert(
            "UserServicePanics",
            f"sum {BY} (increase(grpc_server_panics_total{ON}[10m])) > 0"
            f" or sum {BY} (increase(user_service_store_writer_panics_total{ON}[10m])) > 0", "0m", "warning",
            "Calls or the store's writer panicked",
            "A defect of the service: each such call was answered with INTERNAL, and the writes of such a batch with an unknown outcome.",
        ),
        alert(
            "UserServiceStoreReadOnly", f"user_service_store_writable{ON} == 0", "1m", "critical",
            "The store of {{ $labels.instance }} takes no writes",
            "Creates, updates and deletes answer UNAVAILABLE; reads go on.",
        ),
        alert(
            "UserServiceStoreSlow",
            slow("user_service_store_operation_duration_seconds", WHERE, "namespace, job, operation", "0.1"),
            "10m", "warning",
            "{{ $value | humanizePercentage }} of the store's {{ $labels.operation }} operations take over 100 ms",
            "The disk, or what the store runs on, is slow.",
        ),
        alert(
            "UserServiceStoreQueueLong",
            f"user_service_store_queue_depth{ON} / user_service_store_queue_limit{ON} > 0.5", "5m", "warning",
            "{{ $value | humanizePercentage }} of the places for waiting writes are taken on {{ $labels.instance }}",
            "Writes come faster than the store commits them; with no place left they are turned away.",
        ),
        alert(
            "UserServiceSpansLost",
            f'sum {BY} (rate(user_service_trace_spans_total{{{WHERE}, outcome=~"failed|dropped"}}[10m])) > 0', "15m", "info",
            "Spans do not reach the collector",
            "No call is harmed; traces have holes.",
        ),
        alert(
            "UserServiceAuditLost",
            f"sum {BY} (increase(user_service_audit_lines_lost_total{ON}[10m])) > 0", "0m", "critical",
            "Audit lines are lost",
            "Writes and denials leave no trace: the stream of the audit log is full, or not read.",
        ),
        alert(
            "UserServiceAuthFileStale", f"user_service_auth_file_stale{ON} == 1", "2m", "warning",
            "The {{ $labels.file }} of {{ $labels.instance }} cannot be used",
            "The last one that could be used is in force; an instance that starts now does not start.",
        ),
    ]


def lifetime_left(on: str) -> str:
    """The share of its lifetime that each instance's certificate has left."""
    return f"({NOT_AFTER}{on} - time()) / ({NOT_AFTER}{on} - {NOT_BEFORE}{on})"


def slow(histogram: str, where: str, by: str, bound: str) -> str:
    """More than 5% over a bound, which must be one of the histogram's own."""
    within = f'sum by ({by}) (rate({histogram}_bucket{{{where}, le="{bound}"}}[5m]))'
    return f"1 - {within} / sum by ({by}) (rate({histogram}_count{{{where}}}[5m])) > 0.05"


def record(name: str, expr: str) -> dict:
    return {"record": name, "expr": expr}


def alert(name: str, expr: str, hold: str, severity: str, summary: str, description: str, **labels: str) -> dict:
    return {
        "alert": name,
        "expr": expr,
        "for": hold,
        "labels": {"severity": severity, **labels},
        "annotations": {
            "summary": summary,
            "description": description,
            "runbook": f"docs/OPERATIONS.md#{name.lower()}",
        },
    }


def group(name: str, rules: list[dict]) -> dict:
    return {"name": name, "interval": f"{slo.EVERY_SECONDS}s", "rules": rules}


def files() -> dict[str, dict]:
    return {
        "recording.yaml": {"groups": [group("user-service-recording", recorded())]},
        "alerts.yaml": {"groups": [
            group("user-service-objective", burn_alerts()),
            group("user-service-symptoms", symptom_alerts()),
        ]},
    }
