"""The chart inside of a parent chart, once under its own name and once under an alias:
each is switched by its condition, and has rules and a dashboard that look at itself and
at nothing else. Usage: parents.py [unittest's arguments]"""

import itertools
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "user-service"
NAMESPACE = "shop"
NAMES = ["user-service", "accounts"]
# The job and what else is called after the release.
JOBS = {"user-service": "parent-user-service", "accounts": "parent-accounts"}
ON = {"enabled": True, "store": {"type": "memory"}, "monitor": {"enabled": True}, "dashboard": {"enabled": True},
      "prometheusRule": {"enabled": True}}


def rendered(values: dict) -> list[dict]:
    """What Helm makes of a parent chart that has the chart twice."""
    with tempfile.TemporaryDirectory() as folder:
        parent = pathlib.Path(folder)
        shutil.copytree(CHART, parent / "charts" / CHART.name)
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
        dependencies = [{"name": "user-service", "version": version, "condition": f"{name}.enabled"} for name in NAMES]
        dependencies[1]["alias"] = NAMES[1]
        chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": dependencies}
        (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
        (parent / "values.yaml").write_text(yaml.safe_dump(values))
        done = subprocess.run([ROOT / "bin" / "helm", "template", "parent", parent, "--namespace", NAMESPACE],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]


BOTH = rendered({name: ON for name in NAMES})


def of(name: str, kind: str) -> list[dict]:
    return [found for found in BOTH if found["kind"] == kind and found["metadata"]["name"].startswith(JOBS[name])]


def groups(name: str) -> list[dict]:
    return [group for found in of(name, "PrometheusRule") for group in found["spec"]["groups"]]


def board(name: str) -> dict:
    [file] = next(found for found in of(name, "ConfigMap")).get("data").values()
    return json.loads(file)


def selectors(expr: str) -> list[str]:
    """The selectors of an expression, without what is in quotes elsewhere."""
    promql_parser.parse(expr.replace("$__rate_interval", "2m").replace("$__range", "1h"))
    return re.findall(r"\{([^{}]*)\}", expr)


class Conditions(unittest.TestCase):
    def test_a_condition_switches_each_of_them(self):
        for on in itertools.product([True, False], repeat=2):
            values = {name: ON | {"enabled": enabled} for name, enabled in zip(NAMES, on)}
            found = {each["metadata"]["name"] for each in rendered(values) if each["kind"] == "Deployment"}
            self.assertEqual(found, {JOBS[name] for name, enabled in zip(NAMES, on) if enabled})

    def test_what_is_called_enabled_must_be_a_switch(self):
        with self.assertRaisesRegex(AssertionError, "enabled"):
            rendered({name: ON | {"enabled": "perhaps"} for name in NAMES})


class Names(unittest.TestCase):
    def test_each_monitor_names_the_job_of_its_release(self):
        for name in NAMES:
            [monitor] = of(name, "ServiceMonitor")
            [label] = monitor["spec"]["endpoints"][0]["relabelings"]
            self.assertEqual(label, {"targetLabel": "job", "replacement": JOBS[name]})

    def test_each_query_looks_at_its_own_release(self):
        for name in NAMES:
            where = f'namespace="{NAMESPACE}", job="{JOBS[name]}"'
            rules = [rule["expr"] for group in groups(name) for rule in group["rules"]]
            panels = [target["expr"] for panel in board(name)["panels"] for target in panel.get("targets", [])]
            variables = [each["query"] for each in board(name)["templating"]["list"] if each["type"] == "query"]
            self.assertTrue(len(rules) > 20 and len(panels) > 40 and variables)
            for expr in rules + panels:
                found = selectors(expr)
                # Whatever is read has a selector.
                self.assertEqual(len(found), len(re.findall(r"[A-Za-z_:0-9]+\{", expr)), expr)
                self.assertTrue(found and all(where in selector for selector in found), expr)
            for query in variables:
                self.assertIn(where, query)
            self.assertNotIn("CHART_", json.dumps([groups(name), board(name)]))

    def test_grafana_takes_both_dashboards(self):
        for told in [lambda name: board(name)["uid"], lambda name: board(name)["title"],
                     lambda name: next(iter(of(name, "ConfigMap")[0]["data"]))]:
            self.assertEqual(len({told(name) for name in NAMES}), 2)
        for name in NAMES:
            self.assertLessEqual(len(board(name)["uid"]), 40)


def calls(name: str, code: str, values: str) -> dict:
    labels = {"namespace": NAMESPACE, "job": JOBS[name], "instance": "a", "grpc_service": "user.v1.UserService",
              "grpc_method": "GetUser", "grpc_code": code}
    return {"series": f"grpc_server_handled_total{json_labels(labels)}", "values": values}


def json_labels(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}={json.dumps(value)}" for key, value in labels.items()) + "}"


def firing(alert: str, name: str, severity: str, **more: str) -> dict:
    labels = {"alertname": alert, "namespace": NAMESPACE, "job": JOBS[name], "severity": severity, "alertstate": "firing"}
    return {"labels": "ALERTS" + json_labels(labels | more), "value": 1}


class Alerts(unittest.TestCase):
    def test_a_release_that_fails_fires_its_own_alerts_alone(self):
        for failing, well in [NAMES, NAMES[::-1]]:
            series = [{"series": f'up{json_labels({"namespace": NAMESPACE, "job": JOBS[name], "instance": "a"})}',
                       "values": "1+0x500"} for name in NAMES]
            series += [calls(failing, "Unavailable", "0+1000x500"), calls(failing, "OK", "0+1000x500"),
                       calls(well, "Unavailable", "0+0x500"), calls(well, "OK", "0+1000x500")]
            burns = {"1h": "critical", "6h": "critical", "1d": "warning", "3d": "warning"}
            alerts = [firing("UserServiceBudgetBurn", failing, severity, window=window) for window, severity in burns.items()]
            self.fires(series, alerts)

    def test_a_release_that_is_gone_is_missed_by_its_own_rules_alone(self):
        for gone, there in [NAMES, NAMES[::-1]]:
            up = {"namespace": NAMESPACE, "job": JOBS[there], "instance": "a"}
            self.fires([{"series": f"up{json_labels(up)}", "values": "1+0x500"}],
                       [firing("UserServiceAbsent", gone, "critical")])

    def fires(self, series: list[dict], expected: list[dict]) -> None:
        """With the rules of both releases in one Prometheus, as its operator lays them out."""
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for rule in (found for name in NAMES for found in of(name, "PrometheusRule")):
                files.append(pathlib.Path(folder) / f"{rule['metadata']['name']}.yaml")
                files[-1].write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}))
            self.assertEqual(len(files), 4)
            check = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "4h", "exp_samples": expected}
            test = {"rule_files": [str(file) for file in files], "evaluation_interval": "5m",
                    "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": [check]}]}
            path = pathlib.Path(folder) / "test.yaml"
            path.write_text(yaml.safe_dump(test))
            ran = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
