#!/usr/bin/env python3
"""Makes values.schema.json and the table in README.md from the chart's values.yaml.

usage: generate.py CHART          writes both
       generate.py --check CHART  fails where either is not what it would write

Above a key of values.yaml, `# -- text` is its description, and the lines between
two `# @schema` are put into its schema. `# @schema.root` does so for the whole.
The rest of a schema follows from the value: its type, its default, and that a map
takes no other keys. `settings: PAGE` takes the keys of a map from a page's table.
"""

import json
import pathlib
import re
import sys

import yaml

TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
BEGIN, END = "<!-- values: written by `make chart-docs` -->\n", "<!-- values end -->\n"


def main():
    check = sys.argv[1:2] == ["--check"]
    chart = pathlib.Path(sys.argv[-1])
    text, rows = (chart / "values.yaml").read_text(), []
    lines = text.splitlines()
    schema = schema_of(yaml.compose(text), yaml.safe_load(text), lines, "", rows)
    # Helm hands it to every chart that another one contains.
    schema["properties"]["global"] = {"type": "object", "description": "Values for all charts of a parent chart."}
    # Helm leaves the key of a parent's `condition` among the values.
    schema["properties"]["enabled"] = {"type": "boolean", "description": "For a parent chart's condition; not read here."}
    schema |= yaml.safe_load(marked(plain(lines), "@schema.root")) or {}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of {chart.name}"} | schema

    before, rest = (chart / "README.md").read_text().split(BEGIN)
    after = rest.split(END)[1]
    made = {
        chart / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        chart / "README.md": before + BEGIN + table(rows) + END + after,
    }
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path} is not what values.yaml says: run `make chart-docs`", file=sys.stderr)
        else:
            path.write_text(made[path])
    sys.exit(1 if check and stale else 0)


def schema_of(node, values, lines, path, rows):
    """The schema of a map of values; what README.md says of each goes to `rows`."""
    properties = {}
    for key, value in node.value:
        name, default = path + key.value, values[key.value]
        comment = comment_above(lines, key.start_mark.line)
        text, extra = description(comment), yaml.safe_load(marked(comment, "@schema")) or {}
        page = extra.pop("settings", None)
        skipped = extra.pop("without", [])
        leaf = not isinstance(default, dict) or not default or bool({"additionalProperties", "properties"} & extra.keys())
        if leaf and not text:
            sys.exit(f"values.yaml: {name} has no description (`# --`)")
        if leaf and isinstance(default, (dict, list)) and not {"additionalProperties", "properties", "items"} & extra.keys():
            sys.exit(f"values.yaml: {name} does not say what it takes (`# @schema`)")
        if text:
            rows.append((name, default if leaf else None, text))

        schema = {"description": text} if text else {}
        if not leaf:
            schema |= schema_of(value, default, lines, f"{name}.", rows)
        elif default is not None:
            schema |= {"type": TYPES[type(default)], "default": default}
        if leaf and isinstance(default, dict):
            schema["additionalProperties"] = False
        if page:
            schema["properties"] = with_settings(schema["properties"], page, skipped)
        properties[key.value] = schema | extra
    return {"type": "object", "additionalProperties": False, "properties": properties}


def with_settings(properties, page, skipped):
    known = {key: kind for key, kind in settings(page).items() if key not in skipped}
    if unknown := properties.keys() - known.keys():
        sys.exit(f"values.yaml: {page} has no {', '.join(sorted(unknown))}")
    return {key: kind | properties.get(key, {}) for key, kind in known.items()}


def comment_above(lines, at):
    """The lines of the comment that ends just above line `at`."""
    start = at
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return plain(lines[start:at])


def plain(lines):
    """Comments without their marks."""
    return [re.sub(r"^\s*# ?", "", line) for line in lines if line.lstrip().startswith("#")]


def marked(comment, mark):
    """What stands between two lines that say `mark`."""
    at = [index for index, line in enumerate(comment) if line == mark]
    return "\n".join(comment[at[0] + 1 : at[1]]) if at else ""


def description(comment):
    for index, line in enumerate(comment):
        if line.startswith("-- "):
            return " ".join([line[3:], *comment[index + 1 :]])
    return ""


def settings(page):
    """Schemas of the service's settings, from the table that documents them."""
    path = pathlib.Path(__file__).parents[2] / page
    found = {}
    for name, limits, text in re.findall(r"^\| `([a-z_]+)` \| `.*?` \| (.*?) \| (.*?) \|$", path.read_text(), re.M):
        if bounds := re.fullmatch(r"([\d,]+) to ([\d,]+)", limits):
            least, most = (int(bound.replace(",", "")) for bound in bounds.groups())
            kind = {"type": "integer", "minimum": least, "maximum": most}
        elif limits == "`true`, `false`":
            kind = {"type": "boolean"}
        else:
            kind = {"type": "string", "minLength": 1}
        found[name] = kind | {"description": text}
    return found


def table(rows):
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for name, default, text in rows:
        shown = "" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
        lines.append(f"| `{name}` | {shown} | {text.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"


main()
