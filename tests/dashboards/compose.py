"""The stack of Docker Compose, as far as it can be known without Docker: the file is
one that Compose takes, what it mounts is there, and whoever is named anywhere is a
part of it. Usage: compose.py [unittest's arguments]"""

import fnmatch
import json
import pathlib
import posixpath
import re
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = ROOT / "deploy" / "stack"


def compose(text: str) -> subprocess.CompletedProcess:
    """What Compose's own reader makes of a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return subprocess.run([ROOT / "bin" / "compose-spec", "--format", "json", file.name], cwd=STACK,
                              capture_output=True, text=True)


TEXT = (STACK / "compose.yaml").read_text()
SERVICES = json.loads(compose(TEXT).stdout or "{}").get("services", {})


def host_files(service: str, path: str) -> list[pathlib.Path]:
    """What a container finds under a path, which may be a pattern, in what is mounted."""
    found = []
    for volume in SERVICES[service].get("volumes", []):
        source, target = pathlib.Path(volume["source"]), volume["target"]
        names = [target] if source.is_file() else [f"{target}/{file.name}" for file in source.iterdir()]
        found += [name for name in names if fnmatch.fnmatch(name, path)]
    return found


class Compose(unittest.TestCase):
    def test_compose_takes_the_file_and_nothing_that_is_not_in_its_schema(self):
        taken = compose(TEXT)
        self.assertEqual(taken.returncode, 0, taken.stderr)
        self.assertNotEqual(compose(TEXT.replace("restart:", "restarts:")).returncode, 0)
        for name, service in SERVICES.items():
            self.assertLessEqual(set(service.get("depends_on", {})), set(SERVICES), name)

    def test_what_is_mounted_is_there(self):
        for name, service in SERVICES.items():
            for volume in service.get("volumes", []):
                self.assertTrue(pathlib.Path(volume["source"]).exists(), f"{name}: {volume['source']}")
                self.assertTrue(volume["read_only"], f"{name}: {volume['source']}")

    def test_files_that_are_named_in_containers_are_mounted(self):
        for name, service in SERVICES.items():
            for argument in service.get("command") or []:
                if flag := re.fullmatch(r"-+config[.a-z]*=(/.+)", argument):
                    self.assertTrue(host_files(name, flag[1]), f"{name}: {argument}")
        config = yaml.safe_load((STACK / "prometheus.yml").read_text())
        targets = [pattern for job in config["scrape_configs"] for sd in job["file_sd_configs"] for pattern in sd["files"]]
        for pattern in [*config["rule_files"], *targets]:
            path = posixpath.normpath(posixpath.join("/etc/prometheus/stack", pattern))
            self.assertTrue(host_files("prometheus", path), f"prometheus: {path}")
        boards = yaml.safe_load((STACK / "grafana" / "dashboards.yaml").read_text())["providers"][0]["options"]["path"]
        self.assertEqual(host_files("grafana", f"{boards}/*.json"), [f"{boards}/user-service.json"])

    def test_whoever_is_named_is_a_part_of_the_stack_and_listens_there(self):
        ports = {"user-service": {"50051", "9464"}, "otelcol": {"4318"}, "tempo": {"4318", "3200"},
                 "prometheus": {"9090"}}
        self.assertEqual(set(re.findall(r"EXPOSE (.+)", (ROOT / "Dockerfile").read_text())[0].split()), ports["user-service"])
        tempo = (STACK / "tempo.yaml").read_text()
        self.assertEqual(set(re.findall(r"(?:http_listen_port: |endpoint: 0\.0\.0\.0:)(\d+)", tempo)), ports["tempo"])
        texts = [path.read_text() for path in (*STACK.glob("*.y*ml"), *STACK.glob("grafana/*.yaml"))]
        named = {pair for text in texts for pair in re.findall(r"(?:http://|- |\[)([a-z][a-z-]+):(\d{4,5})\b", text)}
        self.assertGreaterEqual({host for host, _ in named}, set(ports), named)
        for host, port in named:
            self.assertIn(host, SERVICES)
            self.assertIn(port, ports[host], host)

    def test_ports_are_open_to_this_machine_alone(self):
        published = [port for service in SERVICES.values() for port in service.get("ports", [])]
        self.assertTrue(published)
        self.assertEqual({port["host_ip"] for port in published}, {"127.0.0.1"})

    def test_the_collector_is_the_one_that_the_tests_run(self):
        version = re.search(r"otelcol v([\d.]+)", (ROOT / "tools" / "otelcol" / "go.mod").read_text())[1]
        self.assertEqual(SERVICES["otelcol"]["image"].split(":")[1], version)

    def test_every_image_is_listed_with_the_evidence_that_it_exists(self):
        listed = re.findall(r"^\| `(\S+)` \| \S+ \| \S.+ \|$", (STACK / "README.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(images()))


def images() -> set[str]:
    """Whatever a registry has to have: in deploy/, in the Dockerfile and in the chart."""
    found = set()
    for path in [*(ROOT / "deploy").rglob("*.y*ml"), *(ROOT / "helm").rglob("*.y*ml")]:
        # With or without an anchor of YAML; an alias names what stands elsewhere.
        found |= set(re.findall(r"^[ -]*image: *(?:&\w+ +)?([^\s{}&*]+)$", path.read_text(), re.MULTILINE))
    values = yaml.safe_load((ROOT / "helm" / "user-service" / "values.yaml").read_text())
    found.add(values["image"]["repository"])
    dockerfile = (ROOT / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    for image in re.findall(r"^FROM (?:--\S+ )?(\S+)", dockerfile, re.MULTILINE):
        found.add(re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], image))
    # Nothing is pulled for an empty image, nor for what is built here.
    return {image for image in found if image != "scratch" and not image.startswith("localhost/")}


if __name__ == "__main__":
    unittest.main()
