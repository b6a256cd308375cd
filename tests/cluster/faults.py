"""The callers of rollouts.py notice what they are there to notice: each fault that is
planted here fails calls."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile

from kube import CI, IMAGE, Place, Traffic, documented, run

VALUES = CI / "postgres-values.yaml"
# Two replicas that are replaced as fast as can be, under more calls than elsewhere.
QUICK = ("replicaCount=2", "rollout.minReadySeconds=2", "config.drain_timeout_ms=5000")


def must_have_noticed(fault: str, saw: dict, *words: str) -> None:
    """Calls failed of those groups whose names have all the words."""
    groups = [group for name, group in saw["groups"].items() if all(word in name for word in words)]
    calls, failed = (sum(group[key] for group in groups) for key in ("calls", "failed"))
    assert failed > 0, f"{fault}: nobody noticed: {saw}"
    print(f"{fault}: {failed} of {calls} calls failed", flush=True)


@contextlib.contextmanager
def slow_writes(postgres, database: str):
    """Meanwhile writes take half a second, so that some are in flight when they are cut."""
    slow = subprocess.Popen(postgres.session(database), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    slow.stdin.write("BEGIN; SELECT FROM user_service.meta FOR UPDATE; SELECT pg_sleep(0.5); COMMIT; SELECT pg_sleep(0.1);\n" * 400)
    slow.stdin.flush()
    try:
        yield
    finally:
        slow.kill()
        slow.wait()


def without_pre_stop_new_connections_fail(postgres) -> None:
    """Proxies lead to a pod that has gone."""
    place = Place("no-pre-stop")
    postgres.give(place)
    place.install(VALUES, *QUICK, "preStopSleepSeconds=0")
    traffic = Traffic(place.address, pause="2ms")
    for _ in range(3):
        place.restart()
    must_have_noticed("no preStop", traffic.end(), "no retries", "comes and goes")


def health_flips_before_calls_are_cut(postgres) -> None:
    """With no time to drain, callers are safe only if they have left before, which is
    what health is for. Those who ask for `liveness` are not told: it never flips."""
    place = Place("health-flip")
    database = postgres.give(place)
    place.install(VALUES, "replicaCount=3", "config.shutdown_delay_ms=2000", "config.drain_timeout_ms=0")
    told = Traffic(place.headless, pause="10ms")
    unaware = documented() | {"healthCheckConfig": {"serviceName": "liveness"}}
    untold = Traffic(place.headless, pause="10ms", callers=16, config=unaware)
    with slow_writes(postgres, database):
        for _ in range(3):
            place.restart()
    must_have_noticed("no health flip", untold.end(), "no retries")
    told.must_have_noticed_nothing()


def without_goaway_calls_in_flight_fail(postgres) -> None:
    """An image that is stopped by SIGKILL closes connections without a GOAWAY."""
    place = Place("no-goaway")
    database = postgres.give(place)
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        killed_in_place_of_stopped(os.environ["CLUSTER_IMAGES"].split()[-1], archive.name, f"{IMAGE}-killed")
        run("ctr", "--namespace", "k8s.io", "images", "import", archive.name)
    place.install(VALUES, *QUICK, f"image.tag={IMAGE.rpartition(':')[2]}-killed")
    # By one address: whoever asks DNS once in 30 s loses pods that go so fast in any case.
    traffic = Traffic(place.address, pause="2ms", callers=24)
    with slow_writes(postgres, database):
        place.restart()
    must_have_noticed("no GOAWAY", traffic.end(), "no retries")


def killed_in_place_of_stopped(source: str, target: str, name: str) -> None:
    """Writes an image's archive again, with another name and SIGKILL to stop it."""
    with tarfile.open(source) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}

    def replaced(old: dict, document: dict) -> None:
        data = json.dumps(document).encode()
        old |= {"digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}
        files[blob(old)] = data

    def blob(pointer: dict) -> str:
        return "blobs/" + pointer["digest"].replace(":", "/")

    index = json.loads(files["index.json"])
    [pointer] = index["manifests"]
    manifest = json.loads(files[blob(pointer)])
    config = json.loads(files[blob(manifest["config"])])
    config["config"]["StopSignal"] = "SIGKILL"
    replaced(manifest["config"], config)
    replaced(pointer, manifest)
    pointer["annotations"]["io.containerd.image.name"] = name
    files["index.json"] = json.dumps(index).encode()
    files.pop("manifest.json")
    with tarfile.open(target, "w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
