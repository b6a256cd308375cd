#!/usr/bin/env python3
"""Prints what an image holds: its size, user, labels, layers and files. Fails where
it is larger than an image of this service may be, or would run as root.

usage: report.py ARCHIVE

ARCHIVE is an OCI layout: what `make image`, `docker save` and
`docker buildx build --output type=oci` write.
"""

import io
import json
import sys
import tarfile

MIB = 2**20
LIMIT = 17 * MIB


def main():
    with tarfile.open(sys.argv[1]) as archive:

        def blob(pointer):
            return archive.extractfile("blobs/" + pointer["digest"].replace(":", "/")).read()

        wrong = [fault for image in images(json.load(archive.extractfile("index.json")), blob) for fault in report(*image, blob)]
    for fault in wrong:
        print(f"{sys.argv[1]}: {fault}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


def images(index, blob):
    """Each image of an index, with its pointer; one for each platform."""
    for pointer in index["manifests"]:
        found = json.loads(blob(pointer))
        if "manifests" in found:
            yield from images(found, blob)
        # Builders put papers about an image beside it, for a platform that is none.
        elif pointer.get("platform", {}).get("os") != "unknown":
            yield pointer, found


def report(pointer, manifest, blob):
    """Prints an image; what is wrong with it."""
    image = json.loads(blob(manifest["config"]))
    config = image["config"]
    layers = [tarfile.open(fileobj=io.BytesIO(blob(layer))) for layer in manifest["layers"]]
    sizes = [sum(entry.size for entry in layer) for layer in layers]
    name = pointer.get("annotations", {}).get("io.containerd.image.name", "an image")
    print(f"{name} {image['os']}/{image['architecture']}, {sum(sizes) / MIB:.1f} MiB, {pointer['digest']}")
    print(f"  user {config.get('User') or 'root'}, in {config.get('WorkingDir') or '/'}, runs {config.get('Entrypoint')}")
    for label in sorted((config.get("Labels") or {}).items()):
        print("  {}={}".format(*label))
    for index, (layer, size) in enumerate(zip(layers, sizes), 1):
        print(f"  layer {index}, {size / MIB:.1f} MiB")
        for entry in layer:
            mode = ("d" if entry.isdir() else "-") + f"{entry.mode:04o}"
            print(f"    {mode} {entry.uid}:{entry.gid} {entry.size:>9} /{entry.name}")

    if sum(sizes) > LIMIT:
        yield f"{sum(sizes) / MIB:.1f} MiB, and {LIMIT // MIB} MiB at most are wanted"
    user = config.get("User", "").split(":")[0]
    if not user.isdecimal() or int(user) == 0:
        yield f"runs as {user or 'root'}, and not as a number that is not root"


main()
