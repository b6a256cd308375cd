#!/usr/bin/env python3
"""Counts words that make sentences hard to read, and fails where there are more than
each may have left.

CONTRIBUTING.md has the rules behind the list. The allowances have some room for the
places that are right; they may go down and never up. Documents, comments and the texts of
the source that people get to see are read. `--list` prints the counts.
"""

import re
import subprocess
import sys

# A phrase, and how often it may occur.
ALLOWED = {
    "what is": 14,
    "at once": 0,
    "whoever": 0,
    "of its own": 6,
    "of their own": 2,
    "beside": 2,
    "meanwhile": 2,
    "as it comes": 0,
    "those who": 0,
    "nobody": 9,
    "somebody": 1,
    "anybody": 1,
    "everybody": 2,
    "anew": 4,
    "goes by": 0,
    "in the midst": 0,
    "take up": 0,
    "takes up": 1,
    "no way on": 0,
    "seat": 0,
}

# Files with sentences of ours. Tests are left out: a test's name is a sentence of its own kind.
READ = ["*.md", "src/*.rs", "build.rs", "proto/user*", "helm/user-service/values.yaml", "helm/user-service/templates",
        "deploy/image/*.sh", "Makefile", "Dockerfile", "tools/*.sh", "tools/*.py"]
OWN = {"CONTRIBUTING.md", "tools/words.py"}

STRING = r'"(?:\\.|[^"\\])*"'


def prose(path: str, text: str) -> str:
    """The sentences of a file, a line for each of its lines."""
    if path.endswith(".md"):
        text = re.sub(r"^```.*?^```", lambda code: "\n" * code.group(0).count("\n"), text, flags=re.M | re.S)
        return re.sub(r"`[^`\n]*`", "_", text)
    marker = r"//[/!]?" if path.endswith((".rs", ".proto")) else r"#"
    lines = []
    for line in text.splitlines():
        parts = re.findall(STRING, line) if path.endswith(".rs") else []
        comment = re.search(rf"(?:^|\s){marker}\s?(.*)", line)
        lines.append(" ".join(parts + ([comment.group(1)] if comment else [])))
    return "\n".join(lines)


def places(phrase: str, sentences: str) -> list[int]:
    """The lines on which the phrase begins; it may be broken across two."""
    pattern = r"\b" + r"\s+".join(map(re.escape, phrase.split())) + r"\b"
    return [sentences.count("\n", 0, match.start()) + 1 for match in re.finditer(pattern, sentences, re.I)]


def main() -> int:
    listed = subprocess.run(["git", "ls-files", *READ], capture_output=True, text=True, check=True).stdout
    paths = [path for path in listed.splitlines() if path not in OWN and not path.endswith("tests.rs")]
    found: dict[str, list[str]] = {phrase: [] for phrase in ALLOWED}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            sentences = prose(path, file.read())
        for phrase in ALLOWED:
            found[phrase] += [f"{path}:{line}" for line in places(phrase, sentences)]
    if "--list" in sys.argv:
        for phrase, where in found.items():
            print(f"{len(where):4} {phrase}")
        return 0
    code = 0
    for phrase, where in found.items():
        allowed = ALLOWED[phrase]
        if len(where) > allowed:
            print(f'"{phrase}" occurs {len(where)} times and may {allowed} times:', *where, sep="\n  ", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
