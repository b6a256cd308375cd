#!/usr/bin/env python3
"""Makes the image of the Dockerfile's last stage without a daemon or a registry.

usage: assemble.py [--arg NAME=VALUE].. ARCH STAGED NAME:TAG OUT.tar

STAGED is what stage.sh laid out. The instructions are those of the Dockerfile
itself, so that both images hold the same. The archive is an OCI layout that
`docker load`, `ctr images import` and `skopeo copy oci-archive:` take as well.
The same input gives the same image, to the byte.
"""

import argparse
import hashlib
import io
import json
import pathlib
import re
import shlex
import tarfile

DOCKERFILE = pathlib.Path(__file__).parents[2] / "Dockerfile"
EPOCH = "1970-01-01T00:00:00Z"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    for name in ("arch", "staged", "name", "out"):
        parser.add_argument(name)
    given = parser.parse_args()
    args = dict(arg.split("=", 1) for arg in given.arg)

    config, layers = run(last_stage(), args, pathlib.Path(given.staged))
    image = {
        "architecture": given.arch,
        "os": "linux",
        "created": args.get("CREATED") or EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for _, layer in layers]},
        "history": [{"created_by": text} for text, _ in layers],
    }
    write(pathlib.Path(given.out), given.name, image, [layer for _, layer in layers])


def last_stage():
    """The instructions after the last FROM, which must be of an empty image."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    start = max(index for index, (word, _) in enumerate(lines) if word == "FROM")
    assert lines[start] == ["FROM", "scratch"], "the last stage is not FROM scratch"
    return lines[start + 1 :]


def run(instructions, args, staged):
    """The image's configuration and its layers."""
    config, layers, declared = {}, [], {}
    for word, rest in instructions:
        match word:
            case "ARG":
                declared[rest] = args.get(rest, "")
            case "LABEL":
                rest = re.sub(r"\$(\w+)", lambda name: declared[name[1]], rest)
                config["Labels"] = dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "COPY":
                layers.append((f"COPY {rest}", copied(rest, staged)))
            case "USER":
                config["User"] = rest
            case "WORKDIR":
                config["WorkingDir"] = rest
            case "EXPOSE":
                config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
            case "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            case _:
                raise SystemExit(f"{DOCKERFILE}: {word} is not known here")
    if unknown := args.keys() - declared.keys():
        raise SystemExit(f"{DOCKERFILE}: no ARG {', '.join(unknown)}")
    return config, layers


def copied(rest, staged):
    """A layer with what `COPY --from=build [--chown=UID:GID] /out/X /Y` copies."""
    form = r"--from=build (?:--chown=(\d+):(\d+) )?/out/(\S+) /(\S*)"
    uid, gid, source, target = re.fullmatch(form, rest).groups(default="0")
    target = "" if rest.endswith(" /") else target
    source = staged / source
    entries = {target: source} if target else {}
    if source.is_dir():
        entries |= {str(target / path.relative_to(source)) if target else str(path.relative_to(source)): path for path in source.rglob("*")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        for name, path in sorted(entries.items()):
            entry = layer.gettarinfo(path, name)
            entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime = int(uid), int(gid), "", "", 0
            layer.addfile(entry, path.open("rb") if entry.isfile() else None)
    return buffer.getvalue()


def write(out, name, image, layers):
    blobs = {digest(layer): layer for layer in layers}

    def blob(value, kind):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        blobs[digest(data)] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}

    config = blob(image, "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [blob(layer, "layer.v1.tar") for layer in layers],
    }
    pointer = blob(manifest, "manifest.v1+json")
    pointer["platform"] = {"architecture": image["architecture"], "os": "linux"}
    pointer["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    path = lambda key: "blobs/" + key.replace(":", "/")
    files = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [pointer]},
        # For `docker load` of versions that know no OCI layout.
        "manifest.json": [{"Config": path(config["digest"]), "RepoTags": [name], "Layers": [path(digest(layer)) for layer in layers]}],
    }
    files = {key: json.dumps(value).encode() for key, value in files.items()} | {path(key): data for key, data in blobs.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for key, data in sorted(files.items()):
            entry = tarfile.TarInfo(key)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


main()
