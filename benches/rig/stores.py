"""Stores with so many users in them, filled through the service itself and kept
for the next run."""

import json
import subprocess

from rig import machine
from rig.machine import BIN, OUT, OURS
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
            bring(server, users)
        half_done.rename(path)
    return path


def bring(server, users):
    """Imports users 0 to `users` - 1 into ours."""
    command = [OURS, "import", "--server", f"127.0.0.1:{server.port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        process.stdin.writelines(map(line, range(users)))
    if process.returncode:
        raise RuntimeError(f"the import ended with {process.returncode}")


def line(n):
    """User n as JSON, as benches/load would create it."""
    return f'{{"id":"u-{n:09}","name":"User Number {n}","email":"user.{n}@example.com","age":{n % 100}}}\n'


def fill(server, users):
    """Creates users 0 to `users` - 1 in a peer, many at a time."""
    command = [BIN / "load", *server.server.shown(), f"127.0.0.1:{server.port}", "closed", "--kind", "article-create", "--calls", users,
               "--connections", 8, "--streams", 64]
    return json.loads(machine.on_client_core(command))
