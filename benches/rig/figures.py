"""The figures that docs/PERFORMANCE.md shows, a file for each of its tables: those of
the latest run below the target folder, and those that are recorded in the repository."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from marked import markdown, replaced  # noqa: E402, F401

RECORDED = ROOT / "benches" / "figures"
LATEST = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "bench" / "figures"


def path(folder, table):
    # The guard reads the instructions as well.
    return ROOT / "benches" / "instructions.json" if table == "instructions" else folder / f"{table}.json"


def read(folder, table):
    return json.loads(path(folder, table).read_text())


def keep(folder, table, figures):
    folder.mkdir(parents=True, exist_ok=True)
    path(folder, table).write_text(json.dumps(figures, indent=2) + "\n")
