"""Stores with so many users in them, filled through the service itself and kept
for the next run."""

import json

from rig import machine
from rig.machine import BIN, OUT
from rig.servers import QUIET, SERVERS, running


def holding(users):
    """The path of a store with users 0 to `users` - 1, and u-1."""
    path = OUT / "stores" / f"{users}.db"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        half_done = path.with_suffix(".partial")
        for left_over in path.parent.glob(half_done.name + "*"):
            left_over.unlink()
        machine.say(f"filling a store with {users:,} users")
        with running(SERVERS[QUIET], half_done, core=None) as server:
            fill(server, "create", users)
        half_done.rename(path)
    return path


def fill(server, kind, users):
    """Creates users 0 to `users` - 1, many at a time."""
    command = [BIN / "load", f"127.0.0.1:{server.port}", "closed", "--kind", kind, "--calls", users,
               "--connections", 8, "--streams", 64]
    return json.loads(machine.on_client_core(command))
