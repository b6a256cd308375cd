"""Every file of helm/user-service/ci is installed, tried and taken away again."""

import contextlib
import json
import re
import subprocess

from kube import CHART, CI, Place, given, run, until

# What the StatefulSet can have besides the defaults.
SQLITE = ("store.sqlite.size=10Gi", "store.sqlite.storageClassName=fast", "store.sqlite.accessMode=ReadWriteOncePod",
          "store.sqlite.retain=false", "networkPolicy.enabled=true", "monitor.enabled=true")


def comes_and_goes(place: Place, values: str, *settings: str, left: tuple[str, ...] = (), port: int = 50051,
                   meanwhile=lambda: None) -> None:
    """Installs, asks as users do, follows the notes, and finds nothing afterwards but
    what is documented to stay. `meanwhile` runs on the installed release."""
    before = place.objects()
    accepted(place, CI / values, *settings)
    place.install(CI / values, *settings)
    place.smoke()
    address = place.address.replace("50051", str(port))
    run("grpc-health-probe", *place.probe, f"-addr={address}")
    user = {"name": "Ada", "email": "ada@example.com"}
    made = place.call("CreateUser", {"user": user}, port)["user"]
    assert place.call("GetUser", {"id": made["id"]}, port)["user"] == made
    follow_notes(place)
    meanwhile()
    place.helm("uninstall", place.release, "--wait", "--timeout", "2m")
    until("nothing is left of the release", lambda: place.objects() - before == set(left))


def accepted(place: Place, values, *settings: str) -> None:
    """The API server takes every object, and each field of it."""
    objects = place.helm("template", place.release, CHART, "--values", values, "--no-hooks", *given(settings))
    place.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=objects)


def follow_notes(place: Place) -> None:
    """The three commands that an install ends with."""
    notes = place.helm("get", "notes", place.release)
    commands = [line.strip() for line in notes.splitlines() if re.match(r" +(kubectl|helm) ", line)]
    assert len(commands) == 3, notes
    for command in commands[:2]:
        run("bash", "-c", command)
    # Tests forward at the same time, so not all of them can have the port that is printed.
    words = commands[2].replace(" 50051:", " :").split()
    with contextlib.ExitStack() as stack:
        forward = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        stack.callback(forward.wait)
        stack.callback(forward.kill)
        said = forward.stdout.readline()
        port = re.match(r"Forwarding from 127.0.0.1:(\d+)", said)
        assert port, said
        name = [] if "-plaintext" in place.grpcurl else ["-authority", place.address.replace(":50051", ".svc")]
        assert "user.v1.UserService" in run("grpcurl", *place.grpcurl, *name, f"localhost:{port[1]}", "list")


def the_defaults_come_and_go(_) -> None:
    place = Place("defaults")
    place.volume()
    claim = f"persistentvolumeclaim/data-{place.full}-0"
    comes_and_goes(place, "defaults-values.yaml", left=(claim,))
    # The next release takes what the claim holds.
    place.install(CI / "defaults-values.yaml")
    found = place.call("GetUser", {"email": "ada@example.com"})
    assert found["user"]["name"] == "Ada", found


def sqlite_with_everything_comes_and_goes(_) -> None:
    place = Place("sqlite")
    place.volume("fast", "ReadWriteOncePod")
    comes_and_goes(place, "defaults-values.yaml", *SQLITE)


def memory_comes_and_goes(_) -> None:
    comes_and_goes(Place("memory"), "memory-values.yaml")


def replicas_on_postgres_come_and_go(postgres) -> None:
    place = Place("postgres")
    postgres.give(place)
    comes_and_goes(place, "postgres-values.yaml")


def everything_comes_and_goes(postgres) -> None:
    place = Place("everything")
    postgres.give(place)
    place.secret("collector", headers="authorization=none")
    before = place.objects()
    comes_and_goes(place, "everything-values.yaml", port=443)
    assert place.objects() == before


def objects_for_others_are_in_force(postgres) -> None:
    """What this cluster can enforce. Nobody here enforces the NetworkPolicy, or serves
    the route: they are accepted, as the test of everything says."""
    place = Place("in-force")
    postgres.give(place)
    place.secret("collector", headers="authorization=none")
    place.install(CI / "everything-values.yaml", "monitor.kind=ServiceMonitor")
    kinds = ["networkpolicy", "poddisruptionbudget", "horizontalpodautoscaler", "grpcroute", "servicemonitor"]
    for kind in kinds:
        place.kubectl("get", kind, place.full)
    place.kubectl("get", "prometheusrule", f"{place.full}-alerts", f"{place.full}-recording")

    # The autoscaler raises the Deployment to its least.
    until("three replicas are ready", lambda: place.ready() == 3)
    # One may be evicted, and not a second one while it is away.
    first, second = (pod["metadata"]["name"] for pod in place.pods()[:2])
    until("the budget has been counted", lambda: budget(place)["disruptionsAllowed"] == 1)
    assert evict(place, first) == ""
    said = evict(place, second)
    assert "disruption budget" in said, said


def budget(place: Place) -> dict:
    return json.loads(place.kubectl("get", "poddisruptionbudget", place.full, "--output", "json"))["status"]


def evict(place: Place, pod: str) -> str:
    """Asks for an eviction, as `kubectl drain` does, and returns what is against it."""
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": place.name}}
    url = f"/api/v1/namespaces/{place.name}/pods/{pod}/eviction"
    done = subprocess.run(["kubectl", "create", "--raw", url, "--filename", "-"], input=json.dumps(asked),
                          capture_output=True, text=True)
    return done.stderr


def service_links_stop_no_start(_) -> None:
    """A Service of the chart's own name puts variables into the environment of every
    pod that wants them."""
    place = Place("links", release="user-service")
    place.install(CI / "memory-values.yaml", "rollout.minReadySeconds=0", "enableServiceLinks=true")
    place.restart()
    assert place.restarts() == 0
    place.smoke()
    # The one name that would stop it is harmless as the chart comes.
    place.kubectl("create", "service", "clusterip", "usersvc", "--tcp=80")
    place.upgrade(CI / "memory-values.yaml", "rollout.minReadySeconds=0")
    place.restart()
    assert place.restarts() == 0
