"""Replicas on PostgreSQL come and go in every way there is, and no caller notices."""

import os
import time

from installs import evict
from kube import CI, Place, Traffic, until

# How many rollouts, and how many calls there must have been. `make e2e-long` has more.
ROLLOUTS = int(os.environ.get("ROLLOUTS", "3"))
CALLS = int(os.environ.get("CALLS", "10000"))
VALUES = CI / "postgres-values.yaml"

# How long docs/OPERATIONS.md asks to leave clients after a rollout. grpc-go asks DNS
# again after so many seconds at the earliest, and nothing shows from outside that it has.
BETWEEN = 30


def rollouts_evictions_and_scaling_fail_no_call(postgres) -> None:
    place = Place("rollouts")
    postgres.give(place)
    place.install(VALUES, "replicaCount=5")
    traffic = Traffic(place.address, place.headless)

    scale(place, 2)
    scale(place, 3)
    for number in range(ROLLOUTS):
        [restart, upgrade, rollback][number % 3](place, number)
        print(f"rollout {number + 1} of {ROLLOUTS}", flush=True)
    time.sleep(BETWEEN)
    # Node by node, as a drain goes that waits for the budget.
    for pod in place.pods()[:2]:
        name = pod["metadata"]["name"]
        until("the eviction is allowed", lambda: evict(place, name) == "")
        place.rolled_out()
    assert place.restarts() == 0, "a container was restarted"
    calls = traffic.must_have_noticed_nothing()
    assert calls >= CALLS, f"only {calls} calls"
    print(f"{ROLLOUTS} rollouts, 2 evictions, from 5 to 2 and to 3 replicas: {calls} calls, 0 failed")


def scale(place: Place, replicas: int) -> None:
    place.upgrade(VALUES, f"replicaCount={replicas}")
    until(f"{replicas} pods are left", lambda: len(place.pods()) == place.ready() == replicas)


def restart(place: Place, _) -> None:
    place.restart()


def upgrade(place: Place, number: int) -> None:
    place.upgrade(VALUES, f"config.store_cache_bytes={8_000_000 + number}")
    place.rolled_out()


def rollback(place: Place, _) -> None:
    place.helm("rollback", place.release, "--wait", "--timeout", "3m", patience=200)
    place.rolled_out()
