"""The machine: where things are built, and which cores are used."""

import atexit
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
OUT = TARGET / "bench"
BIN = OUT / "bin"
OURS = Path(os.environ.get("BINARY", BIN / "user-service")).resolve()
PYTHON = OUT / "venv" / "bin" / "python"

_cores = sorted(os.sched_getaffinity(0))
SERVER_CORE = int(os.environ.get("SERVER_CORE", _cores[0]))
CLIENT_CORE = int(os.environ.get("CLIENT_CORE", _cores[-1]))
if SERVER_CORE == CLIENT_CORE:
    sys.exit("two cores are needed: one for the server and one for the load")

_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# Idle connections take descriptors on both sides.
resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, _hard), _hard))

# Short, so that a process with little CPU is slow and does not stand still.
CPU_PERIOD_US = 10_000

_port = 21000


def setting(name, default):
    """A number from the environment."""
    return type(default)(os.environ.get(name, default))


def scratch(on_disk=False):
    """A directory that is gone when the program ends."""
    parent = OUT if on_disk else Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=parent, prefix="run-"))
    atexit.register(shutil.rmtree, path, True)
    return path


def port():
    """A port that nobody was just using, below the range that clients are given;
    the one a thousand above it is free too."""
    global _port
    _port = 21000 + (_port - 20999) % 900
    return _port


def pinned(core, command):
    return ["taskset", "-c", str(core), *map(str, command)]


def run(command, **options):
    """Runs a command and returns what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def on_client_core(command, **options):
    """Runs a command beside the server and returns what it printed."""
    return run(pinned(CLIENT_CORE, command), **options)


@contextmanager
def held(pid, cores):
    """Gives a process so much CPU, as a limit of Kubernetes does. Needs root and cgroups, of either version."""
    v1 = Path("/sys/fs/cgroup/cpu")
    parent = v1 if v1.is_dir() else Path("/sys/fs/cgroup")
    group = parent / f"user-service-bench-{pid}"
    quota = int(CPU_PERIOD_US * cores)
    if parent != v1:
        (parent / "cgroup.subtree_control").write_text("+cpu")
    group.mkdir()
    try:
        if parent == v1:
            (group / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {CPU_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # Only a group without processes can be removed.
        for left in (group / "cgroup.procs").read_text().split():
            (parent / "cgroup.procs").write_text(left)
        group.rmdir()


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
