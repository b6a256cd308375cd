#!/usr/bin/env python3
"""Writes the simulated tables of docs/SCALE.md, and what its plot is made of; with --check
it writes nothing, and fails where a table is stale."""

import json
import sys
from pathlib import Path

from scenarios import TABLES, figures

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from marked import markdown, replaced  # noqa: E402

DOCUMENT = ROOT / "docs" / "SCALE.md"
FIGURES = ROOT / "benches" / "figures" / "scale.json"


def written(text):
    for name, table in TABLES.items():
        text = replaced(text, name, markdown(*table()))
    return text


def main():
    text = DOCUMENT.read_text()
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(written(text))
        FIGURES.write_text(json.dumps(figures(), indent=2) + "\n")
    elif written(text) != text:
        sys.exit(f"{DOCUMENT.name} differs from the simulation: run tools/scale/scale.py")


if __name__ == "__main__":
    main()
