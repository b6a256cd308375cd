#!/usr/bin/env python3
"""Prints the service's settings in objects of the chart, which stdin has, as NAME=VALUE.
A URL that a Secret holds is one of an example."""

import sys

import yaml

for object in yaml.safe_load_all(sys.stdin):
    if object and object["kind"] in ("Deployment", "StatefulSet"):
        for variable in object["spec"]["template"]["spec"]["containers"][0]["env"]:
            if variable["name"].startswith("USERSVC_"):
                print(variable["name"], variable.get("value", "postgres://users@db/accounts"), sep="=")
