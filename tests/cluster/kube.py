"""What the tests of the cluster are written with: a namespace of their own, Helm,
PostgreSQL beside the cluster, and callers."""

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "user-service"
CI = CHART / "ci"
IMAGE = f"localhost/user-service:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
# Where the node is, for pods too.
NODE = os.environ["CLUSTER_NODE"]
PATIENCE = 120


def run(*command, patience: float = PATIENCE, stdin: str | None = None) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True, timeout=patience)
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def refused(*command) -> str:
    """What a command says that must end badly."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0, f"{' '.join(map(str, command))} went through: {done.stdout}"
    return done.stdout + done.stderr


def until(what: str, ready, patience: float = PATIENCE):
    """Waits for a thing to be so, and returns what it says."""
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            if said := ready():
                return said
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.2)


def stays(pod: dict) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


class Place:
    """A namespace that holds its pods to the restricted Pod Security Standard, and the
    release in it."""

    # Of each thread, those that its test has made.
    made = threading.local()

    def __init__(self, name: str, release: str = "users"):
        self.name, self.release = name, release
        self.full = release if "user-service" in release else f"{release}-user-service"
        self.apply({"apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
        Place.made.places.append(self)
        self.address, self.headless = f"{self.full}.{name}:50051", f"dns:///{self.full}-headless.{name}:50051"
        # What grpcurl and grpc-health-probe show the service.
        self.grpcurl, self.probe = ["-plaintext"], []

    def kubectl(self, *command, **more) -> str:
        return run("kubectl", "--namespace", self.name, *command, **more)

    def apply(self, *objects: dict) -> None:
        run("kubectl", "apply", "--server-side", "--namespace", self.name, "--filename", "-",
            stdin=yaml.safe_dump_all(objects))

    def secret(self, name: str, **data: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                    "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}})

    def volume(self, storage_class: str = "", mode: str = "ReadWriteOnce") -> None:
        """A volume for the claim of a StatefulSet."""
        path = pathlib.Path("/var/lib/volumes") / self.name
        path.mkdir(parents=True)
        on_node = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}]}
        self.apply({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.name},
            "spec": {"capacity": {"storage": "10Gi"}, "accessModes": [mode], "storageClassName": storage_class,
                     "local": {"path": str(path)}, "nodeAffinity": {"required": {"nodeSelectorTerms": [on_node]}},
                     "claimRef": {"namespace": self.name, "name": f"data-{self.full}-0"}}})

    def helm(self, *command, **more) -> str:
        return run("helm", "--namespace", self.name, *command, **more)

    def install(self, values: pathlib.Path, *settings: str, chart=CHART) -> str:
        return self.helm("install", self.release, chart, "--values", values, *given(settings), "--wait", "--timeout", "2m",
                         patience=150)

    def upgrade(self, values: pathlib.Path, *settings: str, chart=CHART) -> str:
        return self.helm("upgrade", self.release, chart, "--values", values, *given(settings), "--wait", "--timeout", "3m",
                         patience=200)

    def rolled_out(self, kind: str = "deployment") -> None:
        """Waits for the new pods, and for the end of the old ones, which still have calls
        to answer when Kubernetes says that a rollout is done."""
        self.kubectl("rollout", "status", f"{kind}/{self.full}", "--timeout", "3m", patience=200)
        until("those that were replaced are gone", lambda: all(map(stays, self.all_pods())))

    def restart(self) -> None:
        self.kubectl("rollout", "restart", f"deployment/{self.full}")
        self.rolled_out()

    def pods(self) -> list[dict]:
        """Those of the service that are not about to go."""
        return list(filter(stays, self.all_pods()))

    def all_pods(self) -> list[dict]:
        found = self.kubectl("get", "pods", "--selector", "app.kubernetes.io/component=server", "--output", "json")
        return json.loads(found)["items"]

    def ready(self) -> int:
        return sum(condition["type"] == "Ready" and condition["status"] == "True"
                   for pod in self.pods() for condition in pod["status"].get("conditions", []))

    def restarts(self) -> int:
        return sum(status["restartCount"] for pod in self.pods() for status in pod["status"].get("containerStatuses", []))

    def smoke(self) -> None:
        """What `helm test` asks, and what foreign tools do."""
        said = self.helm("test", self.release, "--logs")
        assert re.search(r"Phase:\s+Succeeded", said), said

    def config_map(self, name: str, **data: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})

    def call(self, method: str, request: dict, port: int = 50051) -> dict:
        address = self.address.replace("50051", str(port))
        said = run("grpcurl", *self.grpcurl, "-max-time", "10", "-d", json.dumps(request), address, f"user.v1.UserService/{method}")
        return json.loads(said)

    def objects(self) -> set[str]:
        """Everything in the namespace, but what Kubernetes writes down of its own."""
        kinds = run("kubectl", "api-resources", "--namespaced", "--verbs=list", "--output=name").split()
        kinds = [kind for kind in kinds if not kind.startswith(("events", "leases"))]
        return set(self.kubectl("get", ",".join(kinds), "--output", "name").split())

    def forget(self) -> None:
        run("kubectl", "delete", "namespace", self.name, "--wait=false")

    def log(self) -> str:
        """What there is to know of a failure."""
        said = []
        for command in (["get", "pods,jobs,deployments,statefulsets", "--output", "wide"],
                        ["get", "events", "--sort-by", ".lastTimestamp"],
                        ["logs", "--all-containers", "--prefix", "--tail", "20", "--selector", "app.kubernetes.io/name"]):
            done = subprocess.run(["kubectl", "--namespace", self.name, *command], capture_output=True, text=True)
            said.append(done.stdout[-6000:] + done.stderr[-1000:])
        return "\n".join(said)


def given(settings) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


class Postgres:
    """A server on the node's address, with TLS and passwords."""

    def __init__(self, stack: contextlib.ExitStack, port: int):
        self.stack, self.port = stack, port
        self.programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.chown(self.folder, "nobody", "nogroup")
        self.data = self.folder / "data"
        self.as_nobody(self.programs / "initdb", f"--pgdata={self.data}", "--username=tests", "--auth-local=trust",
                       "--auth-host=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.as_nobody("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3",
                       "-subj", "/CN=database", "-addext", f"subjectAltName=IP:{NODE}",
                       "-keyout", self.data / "server.key", "-out", self.data / "server.crt")
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("hostssl all all 0.0.0.0/0 scram-sha-256\n")
        self.authority = (self.data / "server.crt").read_text()
        self.start()

    def as_nobody(self, *command) -> None:
        subprocess.run([str(word) for word in command], check=True, capture_output=True, cwd=self.folder, user="nobody")

    def start(self) -> None:
        log = self.stack.enter_context((self.folder / "log").open("a"))
        self.server = subprocess.Popen(
            [self.programs / "postgres", "-D", self.data, "-p", str(self.port), "-c", "fsync=off",
             "-c", f"listen_addresses=127.0.0.1,{NODE}", "-c", "unix_socket_directories=", "-c", "ssl=on",
             "-c", "max_connections=300"], stderr=log, cwd="/", user="nobody")
        self.stack.callback(self.stop)
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until("PostgreSQL is ready", lambda: subprocess.run(ready).returncode == 0)

    def stop(self) -> None:
        """Cuts all sessions."""
        self.server.send_signal(signal.SIGINT)
        self.server.wait(timeout=PATIENCE)

    def psql(self, statement: str, database: str = "postgres") -> str:
        return run(*self.session(database), "--command", statement)

    def session(self, database: str) -> list:
        return [self.programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tests", "-d", database, "-qAt", "-v", "ON_ERROR_STOP=1"]

    def give(self, place: Place) -> str:
        """A database, a login that owns it and one that does not, and the Secret of ci/;
        returns its name."""
        name = f"of_{place.name.replace('-', '_')}"
        for role in (name, f"{name}_owner"):
            self.psql(f"CREATE ROLE {role} LOGIN PASSWORD 'pw-{role}'")
        self.psql(f"CREATE DATABASE {name} OWNER {name}_owner")
        self.psql(f"GRANT CREATE ON DATABASE {name} TO {name}")
        self.psql(f"""ALTER DEFAULT PRIVILEGES FOR ROLE {name}_owner GRANT USAGE ON SCHEMAS TO {name};
            ALTER DEFAULT PRIVILEGES FOR ROLE {name}_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {name}""", name)

        def url(role: str) -> str:
            return f"postgres://{role}@{NODE}:{self.port}/{name}"

        place.secret("user-service-database", **{
            "url": url(name), "password": f"pw-{name}", "owner-url": url(f"{name}_owner"),
            "owner-password": f"pw-{name}_owner", "ca.crt": self.authority})
        return name


class Traffic:
    """Callers of a release, through its ClusterIP and its headless name at once. `shown` is
    what they show it, as variables."""

    def __init__(self, *targets: str, pause: str = "50ms", callers: int = 2, config: dict | None = None,
                 shown: dict[str, str] | None = None):
        self.config = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(config or documented(), self.config)
        self.config.flush()
        self.process = subprocess.Popen([ROOT / "bin" / "go-traffic", "-config", self.config.name, "-pause", pause,
                                         "-callers", str(callers), *targets],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | (shown or {}))
        assert self.process.stdout.readline() == "ready\n", "the callers do not get through"

    def end(self) -> dict:
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        self.config.close()
        return json.loads(said)

    def must_have_noticed_nothing(self) -> int:
        """How many calls there were."""
        saw = self.end()
        failed = {name: group for name, group in saw["groups"].items() if group["failed"]}
        assert not failed, f"calls failed: {json.dumps(failed, indent=2)}"
        assert not saw["missing"], f"of {saw['created']} users {len(saw['missing'])} are lost: {saw['missing'][:3]}"
        idle = [name for name, group in saw["groups"].items() if group["calls"] < 10]
        assert not idle, f"hardly any calls: {idle}"
        return sum(group["calls"] for group in saw["groups"].values())


def documented() -> dict:
    """The service config that docs/OPERATIONS.md recommends."""
    return json.loads((ROOT / "deploy" / "client" / "service-config.json").read_text())
