"""What the kubelet does with a pod whose store is away, that hangs, or that takes its
time to start."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

from kube import CHART, CI, Place, Postgres, given, until

VALUES = CI / "postgres-values.yaml"
# The probes ask more often than the chart's, so that they could act sooner.
IMPATIENT = ("probes.liveness.periodSeconds=1", "probes.liveness.timeoutSeconds=3", "probes.readiness.periodSeconds=1",
             "rollout.minReadySeconds=0", "preStopSleepSeconds=0", "config.drain_timeout_ms=1000",
             "config.flush_timeout_ms=1000")
# Longer than liveness or startup would bear.
LONG = 8


def a_pod_whose_store_is_away_is_not_ready_and_not_restarted(_) -> None:
    place = Place("store-away")
    with contextlib.ExitStack() as stack:
        own = Postgres(stack, 5433)
        own.give(place)
        place.install(VALUES, *IMPATIENT, "replicaCount=2")
        pods = {pod["metadata"]["uid"] for pod in place.pods()}
        own.stop()
        until("no pod is ready", lambda: place.ready() == 0)
        time.sleep(LONG)
        assert place.ready() == 0
        own.start()
        until("both pods are ready again", lambda: place.ready() == 2)
        assert place.restarts() == 0, "a pod was restarted"
        assert {pod["metadata"]["uid"] for pod in place.pods()} == pods, "a pod was replaced"


def a_hung_process_is_restarted(_) -> None:
    place = Place("hung")
    place.install(CI / "memory-values.yaml", *IMPATIENT)
    [pod] = place.pods()
    os.kill(process(pod["metadata"]["uid"]), signal.SIGSTOP)
    until("the container was restarted", lambda: place.restarts() == 1)
    until("it is ready again", lambda: place.ready() == 1)
    assert [now["metadata"]["uid"] for now in place.pods()] == [pod["metadata"]["uid"]], "the pod was replaced"


def process(uid: str) -> int:
    """The service's process in a pod."""
    for cgroup in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if uid in cgroup.read_text() and (cgroup.parent / "comm").read_text() == "user-service\n":
                return int(cgroup.parent.name)
    raise AssertionError(f"pod {uid} has no such process")


def a_slow_migration_is_not_killed(postgres) -> None:
    place = Place("migration")
    database = postgres.give(place)
    # Somebody else is making the same schema, and takes longer than the startup probe bears.
    other = subprocess.Popen(postgres.session(database), stdin=subprocess.PIPE, text=True)
    other.stdin.write("BEGIN; CREATE SCHEMA user_service;\n")
    other.stdin.flush()
    waits = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    place.helm("install", place.release, CHART, "--values", VALUES,
               *given((*IMPATIENT, "probes.startup.failureThreshold=3", "replicaCount=1")))
    until("the migration waits", lambda: postgres.psql(waits).strip() == "1")
    time.sleep(LONG)
    assert place.ready() == 0
    # Every other half second it lets go, so that others get their turn.
    until("the migration still waits", lambda: postgres.psql(waits).strip() == "1")
    assert place.restarts() == 0, "it was killed"
    other.communicate("ROLLBACK;\n")
    until("the pod is ready", lambda: place.ready() == 1)
    assert place.restarts() == 0, "it was killed"
    place.smoke()
