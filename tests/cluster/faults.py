"""The callers of rollouts.py notice what they are there to notice: each fault that is
planted here fails calls."""

import hashlib
import io
import json
import os
import tarfile
import tempfile

from kube import CI, IMAGE, Place, Traffic, documented, run

VALUES = CI / "postgres-values.yaml"
# Two replicas that are replaced as fast as can be, under more calls than elsewhere.
QUICK = ("replicaCount=2", "rollout.minReadySeconds=2", "config.drain_timeout_ms=5000")


def failed(saw: dict, *words: str) -> int:
    """How many calls of those groups failed whose names have all the words."""
    return sum(group["failed"] for name, group in saw["groups"].items() if all(word in name for word in words))


def without_pre_stop_new_connections_fail(postgres) -> None:
    """Proxies lead to a pod that has gone."""
    place = Place("no-pre-stop")
    postgres.give(place)
    place.install(VALUES, *QUICK, "preStopSleepSeconds=0")
    traffic = Traffic(place.address, pause="2ms")
    for _ in range(3):
        place.restart()
    saw = traffic.end()
    assert failed(saw, "no retries", "comes and goes") > 0, f"nobody noticed: {saw}"


def health_flips_before_calls_are_cut(postgres) -> None:
    """With no time to drain, callers are safe only if they have left before, which is
    what health is for. Those who ask for `liveness` are not told: it never flips."""
    place = Place("health-flip")
    postgres.give(place)
    place.install(VALUES, "replicaCount=3", "config.shutdown_delay_ms=2000", "config.drain_timeout_ms=0")
    told = Traffic(place.headless, pause="10ms")
    untold = Traffic(place.headless, pause="0s", config=documented() | {"healthCheckConfig": {"serviceName": "liveness"}})
    place.restart()
    saw = untold.end()
    told.must_have_noticed_nothing()
    assert failed(saw, "no retries", "stays") > 0, f"nobody noticed: {saw}"


def without_goaway_calls_in_flight_fail(postgres) -> None:
    """An image that is stopped by SIGKILL closes connections without a GOAWAY."""
    place = Place("no-goaway")
    postgres.give(place)
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        killed_in_place_of_stopped(os.environ["CLUSTER_IMAGES"].split()[-1], archive.name, f"{IMAGE}-killed")
        run("ctr", "--namespace", "k8s.io", "images", "import", archive.name)
    place.install(VALUES, *QUICK, f"image.tag={IMAGE.rpartition(':')[2]}-killed")
    traffic = Traffic(place.address, place.headless, pause="0s")
    place.restart()
    saw = traffic.end()
    assert failed(saw, "no retries", "stays") > 0, f"nobody noticed: {saw}"


def killed_in_place_of_stopped(source: str, target: str, name: str) -> None:
    """Writes an image's archive anew, with another name and SIGKILL to stop it."""
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
