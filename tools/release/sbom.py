#!/usr/bin/env python3
"""Makes the image's CycloneDX bill of materials from its archive and the binary's.

usage: sbom.py IMAGE.tar BINARY.cdx.json OUT.cdx.json [PACKAGE=VERSION..]
       sbom.py --check IMAGE.tar BINARY.cdx.json

PACKAGE=VERSION is a Debian package of which the image holds files. --check compares the
dependencies that the binary itself lists (cargo-auditable) with those of its bill.
"""

import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zlib

SECTION = ".dep-v0"


def main():
    if sys.argv[1] == "--check":
        check(pathlib.Path(sys.argv[2]), json.loads(pathlib.Path(sys.argv[3]).read_text()))
    else:
        image, binary, out, *packages = sys.argv[1:]
        bill = image_bill(pathlib.Path(image), json.loads(pathlib.Path(binary).read_text()), packages)
        pathlib.Path(out).write_text(json.dumps(bill, indent=2) + "\n")


def image_bill(image, binary, packages):
    config, digest, files = contents(image)
    labels = config["config"]["Labels"]
    subject = {
        "type": "container", "bom-ref": digest, "name": labels["org.opencontainers.image.title"],
        "version": labels["org.opencontainers.image.version"],
        "hashes": [hash_of(digest.removeprefix("sha256:"))],
        "licenses": [{"license": {"id": labels["org.opencontainers.image.licenses"]}}],
    }
    program = binary["metadata"]["component"]
    components = [program | {"type": "application"}, *binary["components"]]
    direct = [program["bom-ref"]]
    for package in packages:
        name, version = package.split("=", 1)
        components.append({"type": "library", "bom-ref": f"deb:{name}", "name": name, "version": version,
                           "purl": f"pkg:deb/debian/{name}@{version}"})
        direct.append(f"deb:{name}")
    for name, data in sorted(files.items()):
        components.append({"type": "file", "bom-ref": f"file:{name}", "name": f"/{name}",
                           "hashes": [hash_of(hashlib.sha256(data).hexdigest())]})
        direct.append(f"file:{name}")
    return binary | {
        "metadata": binary["metadata"] | {"component": subject},
        "components": components,
        "dependencies": [{"ref": digest, "dependsOn": direct}, *binary["dependencies"]],
    }


def check(image, bill):
    """Every crate that is in the binary is in its bill, in that version, and none is missing."""
    files = contents(image)[2]
    listed = {(one["name"], one["version"]) for one in embedded(files["user-service"])["packages"]
              if one.get("kind", "runtime") == "runtime" and not one.get("root")}
    billed = {(one["name"], one["version"]) for one in bill["components"]}
    missing, absent = sorted(listed - billed), sorted(billed - listed)
    if missing or len(listed) < 50:
        raise SystemExit(f"sbom: the binary has, and its bill has not: {missing}; of {len(listed)}")
    print(f"sbom: {len(listed)} crates are in the binary and in its bill, which has {len(absent)} more for its compilation")


def embedded(binary):
    """What cargo-auditable has written into a binary."""
    with tempfile.TemporaryDirectory() as folder:
        path, section = pathlib.Path(folder) / "binary", pathlib.Path(folder) / "section"
        path.write_bytes(binary)
        subprocess.run(["objcopy", "--dump-section", f"{SECTION}={section}", path, "/dev/null"], check=True)
        return json.loads(zlib.decompress(section.read_bytes()))


def contents(image):
    """The configuration, the digest of the manifest, and the files of all layers."""
    with tarfile.open(image) as archive:
        blobs = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
    blob = lambda pointer: blobs["blobs/" + pointer["digest"].replace(":", "/")]
    [pointer] = json.loads(blobs["index.json"])["manifests"]
    manifest = json.loads(blob(pointer))
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
            files |= {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
    return json.loads(blob(manifest["config"])), pointer["digest"], files


def hash_of(content):
    return {"alg": "SHA-256", "content": content}


main()
