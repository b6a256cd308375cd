"""The chart and the image on a real cluster, asked as an operator would. Runs inside
of tests/cluster/cluster.sh. Usage: e2e.py [PART-OF-A-NAME].."""

import concurrent.futures
import contextlib
import pathlib
import sys
import time

import changes
import faults
import installs
import probes
import rollouts
import secure
from kube import Place, Postgres

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tools"))

from tally import summary, tried  # noqa: E402

# The longest first: they run a few at a time, and wait more than they work.
TESTS = [
    rollouts.rollouts_evictions_and_scaling_fail_no_call,
    changes.a_bad_upgrade_takes_no_old_pod_down,
    installs.everything_comes_and_goes,
    changes.an_upgrade_from_an_earlier_chart_loses_nothing_on_postgres,
    faults.without_pre_stop_new_connections_fail,
    secure.a_secure_release_comes_renews_its_certificate_and_goes,
    installs.the_defaults_come_and_go,
    installs.replicas_on_postgres_come_and_go,
    probes.a_pod_whose_store_is_away_is_not_ready_and_not_restarted,
    faults.without_goaway_calls_in_flight_fail,
    installs.objects_for_others_are_in_force,
    installs.service_links_stop_no_start,
    installs.sqlite_with_everything_comes_and_goes,
    installs.memory_comes_and_goes,
    probes.a_hung_process_is_restarted,
    probes.a_slow_migration_is_not_killed,
    changes.an_upgrade_from_an_earlier_chart_loses_nothing_on_sqlite,
]
# Only when named: what is planted fails a call in a thousand, so that a slow machine
# may see none, and that would say nothing of a change.
BY_CHANCE = [faults.health_flips_before_calls_are_cut]
AT_A_TIME = 4


def passes(test, postgres: Postgres) -> bool:
    Place.made.places = []
    if not tried(test.__name__, test, postgres, log=lambda: [place.log() for place in Place.made.places]):
        return False
    for place in Place.made.places:
        place.forget()
    return True


def main() -> None:
    parts = sys.argv[1:]
    chosen = [test for test in [*BY_CHANCE, *TESTS] if any(part in test.__name__ for part in parts)] if parts else TESTS
    print(f"running {len(chosen)} tests", flush=True)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        postgres = Postgres(stack, 5432)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            passed = list(pool.map(lambda test: passes(test, postgres), chosen))
    failed = passed.count(False)
    summary(passed.count(True), failed, began)
    sys.exit(failed > 0 or not passed)


if __name__ == "__main__":
    main()
