"""Writes the board of Grafana and the rules of Prometheus into deploy/, and into the
chart, since Helm reads no file outside of it; with --check it writes nothing, and
fails where what is there is stale."""

import json
import pathlib
import sys

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

import panels
import rules
import slo
from board import board

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = ROOT / "helm" / "user-service" / "files"
HEAD = "# Written by `make dashboards` from tools/dashboards; changes belong there.\n"


def text(dumper: yaml.Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


yaml.add_representer(str, text, Dumper=yaml.SafeDumper)


def dashboard() -> dict:
    made = json.loads(json.dumps(board(), cls=JSONEncoder))
    # Grafana gives panels ids where there are none, and then calls the board changed.
    for number, panel in enumerate(made["panels"], start=1):
        panel["id"] = number
    return made


def of_release(made: dict) -> dict:
    """The board of one release, next to those of others: nobody chooses its job."""
    variables = made["templating"]["list"]
    made["templating"]["list"] = [variable for variable in variables if variable["name"] != "job"]
    made |= {"uid": "CHART_UID", "title": f"{made['title']}: CHART_NAMESPACE/CHART_JOB"}
    chosen, release = (json.dumps(where)[1:-1] for where in (panels.JOB, slo.RELEASE))
    return json.loads(json.dumps(made).replace(chosen, release))


def written(made: dict) -> str:
    return json.dumps(made, indent=2) + "\n"


def files() -> dict[pathlib.Path, str]:
    made = {DEPLOY / "grafana" / "user-service.json": written(dashboard()),
            CHART / "user-service.json": written(of_release(dashboard()))}
    for name, content in rules.files().items():
        dumped = HEAD + yaml.dump(content, Dumper=yaml.SafeDumper, sort_keys=False, width=110)
        made[DEPLOY / "prometheus" / name] = published(dumped)
        # The chart has a value for where runbooks are published.
        made[CHART / name] = dumped.replace(slo.WHERE, slo.RELEASE)
    return made


def published(content: str) -> str:
    return content.replace("runbook: docs/", f"runbook_url: {slo.PUBLISHED}/docs/") if slo.PUBLISHED else content


def main() -> None:
    stale = [path for path, content in files().items() if not path.exists() or path.read_text() != content]
    for path in stale:
        if "--check" in sys.argv[1:]:
            sys.exit(f"{path.relative_to(ROOT)} is stale: run `make dashboards`")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files()[path])


if __name__ == "__main__":
    main()
