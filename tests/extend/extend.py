#!/usr/bin/env python3
"""Follows the recipes of docs/EXTEND.md.

extend.py --check    whether each patch applies, and whether its table names its files
extend.py            the same, then applies each to a copy of the checkout, compiles it,
                     and runs the rules of every store and the smoke test there

The copies share compiled dependencies with the checkout, by hard links."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
SCRATCH = BUILT / "extend"
PAGE = ROOT / "docs" / "EXTEND.md"
RECIPES = {"field": "Add a field", "call": "Add a call"}
# What is compiled besides the library's own tests.
TIERS = ("store", "ops", "access")
# Parts of the names of tests: units that know fields or methods, the rules of every
# store, who may call, erasure, migrations, the canary, and the smoke test against the built binary.
TESTS = ("fields decide after_image jsonl user_v1 rules:: matrix router error_size memory:: sqlite:: postgres:: "
         "erasure:: migrations:: pii_canary::no_mark cli_smoke").split()


def patch(name):
    return Path(__file__).with_name(f"{name}.patch")


def touched(name):
    return re.findall(r"^\+\+\+ b/(.+)$", patch(name).read_text(), re.MULTILINE)


def wrong(name):
    """What does not hold of a recipe."""
    applied = subprocess.run(["git", "apply", "--check", str(patch(name))], cwd=ROOT, capture_output=True, text=True)
    if applied.returncode:
        yield f"{applied.stderr.strip()}\nsee the end of docs/EXTEND.md"
    section = PAGE.read_text().split(f"\n## {RECIPES[name]}\n")[1].split("\n## ")[0]
    steps = re.findall(r"^\| \d+ \| `([^`]+)`", section, re.MULTILINE)
    named = re.findall(r"`([^`]+)`", section)
    # Whether a test is a step of its own is the table's choice.
    if surplus := set(steps) - set(touched(name)):
        yield f"docs/EXTEND.md has steps that tests/extend/{name}.patch has not: {sorted(surplus)}"
    if missing := set(touched(name)) - set(named):
        yield f"docs/EXTEND.md does not name {sorted(missing)} of tests/extend/{name}.patch"
    if f"touches {len(steps)}\nfiles" not in section and f"touches {len(steps)} files" not in section:
        yield f"docs/EXTEND.md does not say that adding a {name} touches {len(steps)} files"


def copy(name):
    """A copy of the checkout, as it is, with the patch."""
    place = SCRATCH / name / "checkout"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if file and (ROOT / file).is_file():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, place / file)
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
    subprocess.run(["git", "apply", str(patch(name))], cwd=place, check=True)
    return place


def seed(name):
    """A place to compile in, with the dependencies that the checkout has compiled. What is
    compiled of the checkout itself has the same names, and is left out: it would be written to."""
    own = shutil.ignore_patterns("*user[-_]service-*", *(f"{tier}-*" for tier in TIERS))
    target = SCRATCH / name / "target"
    # cargo writes fingerprints in place.
    for part, place in ("deps", os.link), ("build", os.link), (".fingerprint", shutil.copy2):
        if (BUILT / "debug" / part).is_dir():
            shutil.copytree(BUILT / "debug" / part, target / "debug" / part, ignore=own, copy_function=place)
    return target


def main():
    faults = [fault for name in RECIPES for fault in wrong(name)]
    if faults:
        sys.exit("\n".join(faults))
    for name in RECIPES:
        print(f"docs/EXTEND.md: to add a {name} touches {len(touched(name))} files, tests among them")
    if sys.argv[1:] == ["--check"]:
        return
    shutil.rmtree(SCRATCH, ignore_errors=True)
    for name in RECIPES:
        print(f"\n== a copy with {name}.patch", flush=True)
        tiers = [arg for tier in TIERS for arg in ("--test", tier)]
        command = ["cargo", "test", "--locked", "--no-fail-fast", "--lib", *tiers, "--", *TESTS]
        environment = os.environ | {"CARGO_TARGET_DIR": str(seed(name))}
        subprocess.run(command, cwd=copy(name), env=environment, check=True)
        shutil.rmtree(SCRATCH / name)


if __name__ == "__main__":
    main()
