#!/usr/bin/env python3
"""Writes the simulated tables of docs/SCALE.md, and what its plot is made of; with --check
it writes nothing, and fails where a table is stale."""

import json
import re
import sys
from pathlib import Path

from scenarios import TABLES, figures

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "SCALE.md"
FIGURES = ROOT / "benches" / "figures" / "scale.json"


def markdown(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def written(text):
    for name, table in TABLES.items():
        between = re.compile(rf"(<!-- {name}: [^\n]+ -->\n).*?(<!-- {name} end -->)", re.DOTALL)
        made = markdown(*table())
        text, places = between.subn(lambda found: f"{found[1]}{made}\n{found[2]}", text)
        if places != 1:
            sys.exit(f"{DOCUMENT.name} has {places} places for the table {name}")
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
