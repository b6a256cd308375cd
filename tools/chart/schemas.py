#!/usr/bin/env python3
"""Writes the schemas that kubeconform needs, so that it needs no network.

usage: schemas.py OUT VERSION.. -- CRD_FILE..

Those of Kubernetes come from the Python package kubernetes-validate, those of
custom resources from their definitions.
"""

import importlib.util
import json
import pathlib
import sys

import yaml

# A bare `=` is a value in YAML 1.1, and PyYAML refuses it; some definitions list it.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def main():
    out, rest = pathlib.Path(sys.argv[1]), sys.argv[2:]
    split = rest.index("--")
    for version in rest[:split]:
        kubernetes(version, out / "kubernetes" / version)
    for name in rest[split + 1 :]:
        for document in yaml.safe_load_all(pathlib.Path(name).read_text()):
            if document and document.get("kind") == "CustomResourceDefinition":
                custom(document["spec"], out / "custom")


def kubernetes(version, out):
    package = pathlib.Path(importlib.util.find_spec("kubernetes_validate").origin).parent
    source = package / "kubernetes-json-schema" / f"v{version}-local-strict"
    files = sorted(source.glob("*.json"))
    if not files:
        sys.exit(f"kubernetes-validate has no schemas of Kubernetes {version}")
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        schema.pop("$id", None)  # relative references would be looked up on the web
        (out / file.name).write_text(json.dumps(schema))


def custom(spec, out):
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        folder = out / spec["group"]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{spec['names']['kind'].lower()}_{version['name']}.json"
        (folder / name).write_text(json.dumps(schema))


def strict(node):
    """The same schema, refusing what it does not name, as the API server does."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: strict(value) for key, value in node.items()}
    named = isinstance(node.get("properties"), dict)
    if named and "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        node["additionalProperties"] = False
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
        node.pop("anyOf", None)
        node["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    return node


main()
