"""The rules of Grafana's dashboard-linter, for our board and rules; and that
every link leads somewhere. Usage: lint.py [unittest's arguments]"""

import json
import pathlib
import re
import sys
import unittest

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "dashboards"))
import slo  # noqa: E402

BOARD = json.loads((ROOT / "deploy" / "grafana" / "user-service.json").read_text())
RULES = [
    rule
    for path in sorted((ROOT / "deploy" / "prometheus").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
# Alerts about a whole job have no instance, and must be shown whichever one is chosen.
WITHOUT_INSTANCE = {"ALERTS": "$instance|"}
RATES = {"rate", "irate", "increase"}


def parsed(expr: str):
    """Grafana's variables replaced by what Prometheus may see in their place."""
    return promql_parser.parse(expr.replace("$__rate_interval", "2m").replace("$__range", "1h"))


def selectors(node, within=()):
    """Every selector of an expression, and the functions that it stands in."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        yield node, within
    elif kind == "Call":
        for arg in node.args:
            yield from selectors(arg, (*within, node.func.name))
    else:
        for name in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
            child = getattr(node, name, None)
            if child is not None and type(child).__module__.startswith("promql_parser"):
                yield from selectors(child, within)


def matchers(selector) -> dict[str, tuple[str, str]]:
    return {m.name: (str(m.op), m.value) for m in selector.matchers.matchers}


class Board(unittest.TestCase):
    def test_it_is_one_board_that_nobody_edits_in_place(self):
        self.assertEqual((BOARD["uid"], BOARD["editable"], BOARD["schemaVersion"]), ("user-service", False, 42))
        self.assertEqual(len({panel["id"] for panel in BOARD["panels"]}), len(BOARD["panels"]))

    def test_the_data_source_is_chosen(self):
        source = BOARD["templating"]["list"][0]
        self.assertEqual([source[key] for key in ("name", "label", "type", "query")],
                         ["datasource", "Data source", "datasource", "prometheus"])
        for panel in PANELS:
            for uses in (panel, *panel["targets"]):
                self.assertEqual(uses["datasource"], {"type": "prometheus", "uid": "${datasource}"}, panel["title"])

    def test_job_and_instance_are_chosen_many_at_a_time(self):
        for variable, name in zip(BOARD["templating"]["list"][1:], ("job", "instance"), strict=True):
            said = [variable[key] for key in ("name", "label", "type", "multi", "includeAll", "allValue")]
            self.assertEqual(said, [name, name.title(), "query", True, True, ".+"])
            self.assertEqual(variable["refresh"], 2, "instances come and go with the time that is shown")
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            self.assertEqual(asked[2], name)
            self.assertTrue(list(selectors(parsed(asked[1]))), asked[1])
            self.assertEqual(variable["datasource"]["uid"], "${datasource}")

    def test_every_panel_says_what_it_shows_in_what_unit(self):
        for panel in PANELS:
            self.assertTrue(panel["title"] and panel["description"] and panel["targets"], panel)
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])
        titles = [panel["title"] for panel in PANELS]
        self.assertEqual(len(set(titles)), len(titles))

    def test_every_query_asks_for_the_chosen_jobs_and_instances(self):
        for title, expr in QUERIES:
            found = list(selectors(parsed(expr)))
            self.assertTrue(found, f"{title}: {expr}")
            for selector, _ in found:
                asked = matchers(selector)
                for name in ("job", "instance"):
                    value = WITHOUT_INSTANCE.get(selector.name, f"${name}") if name == "instance" else f"${name}"
                    self.assertEqual(asked.get(name, ("", ""))[1], value, f"{title}: {expr}")
                    self.assertIn(f'{name}=~"{value}"', expr)

    def test_rates_go_with_the_width_of_the_board(self):
        for title, expr in QUERIES:
            rates = sum(bool(RATES & set(functions)) for _, functions in selectors(parsed(expr)))
            self.assertEqual(expr.count("[$__rate_interval]"), rates, f"{title}: {expr}")

    def test_no_panel_lies_on_another(self):
        taken = set()
        for panel in BOARD["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            self.assertFalse(taken & cells, panel["title"])
            taken |= cells


class Everywhere(unittest.TestCase):
    def test_counters_are_read_as_rates_and_nothing_else_is(self):
        for where, expr in QUERIES + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]:
            for selector, functions in selectors(parsed(expr)):
                counter = selector.name.endswith(("_total", "_bucket", "_count", "_sum"))
                self.assertEqual(counter, bool(RATES & set(functions)), f"{where}: {selector.name} in {expr}")

    def test_every_recorded_series_that_is_read_is_recorded(self):
        recorded = {rule["record"] for rule in RULES if "record" in rule}
        for where, expr in QUERIES + [(rule.get("alert", ""), rule["expr"]) for rule in RULES]:
            for selector, _ in selectors(parsed(expr)):
                if ":" in selector.name:
                    self.assertIn(selector.name, recorded, f"{where}: {expr}")

    def test_every_alert_leads_to_its_runbook(self):
        headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "OPERATIONS.md").read_text(), re.MULTILINE)
        anchors = {heading.lower().replace(" ", "-") for heading in headings}
        for rule in RULES:
            if "alert" in rule:
                notes = rule["annotations"]
                page, anchor = (notes.get("runbook_url") or notes["runbook"]).split("#")
                self.assertEqual(page.removeprefix(f"{slo.PUBLISHED}/"), "docs/OPERATIONS.md")
                self.assertIn(anchor, anchors, rule["alert"])
                self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})


if __name__ == "__main__":
    unittest.main()
