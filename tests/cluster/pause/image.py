#!/usr/bin/env python3
"""Packs the static pause program into an image archive: image.py BINARY OUT"""

import hashlib
import io
import json
import sys
import tarfile

NAME = "localhost/pause:1"


def packed(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def main() -> None:
    binary, out = sys.argv[1:]
    with open(binary, "rb") as file:
        layer = packed({"pause": (file.read(), 0o755)})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "65535:65535", "Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "layer.tar": layer,
    }
    with open(out, "wb") as file:
        file.write(packed({name: (data, 0o644) for name, data in files.items()}))


if __name__ == "__main__":
    main()
