#!/usr/bin/env python3
"""Prints what the service costs before anybody calls it: the size of the binary,
the time from exec to SERVING, and its memory when idle.

usage: figures.py BINARY [RUNS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time


def start(binary, store):
    """Starts a server; returns it and the milliseconds it took to serve."""
    env = {
        **os.environ,
        "USERSVC_GRPC_ADDR": "127.0.0.1:0",
        "USERSVC_ADMIN_ADDR": "127.0.0.1:0",
        "USERSVC_STORE_URL": store,
        "USERSVC_LOG_FORMAT": "json",
    }
    began = time.monotonic()
    server = subprocess.Popen([binary], env=env, stderr=subprocess.PIPE, text=True)
    said = []
    for line in server.stderr:
        said.append(line)
        if '"serving"' in line:
            return server, (time.monotonic() - began) * 1000
    sys.exit(f"{binary} ended before it served:\n{''.join(said)}")


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def main():
    binary, runs = sys.argv[1], int((sys.argv + ["20"])[2])
    took, resident = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs + 1):
            server, ms = start(binary, f"sqlite:{folder}/users.db")
            time.sleep(0.5)  # what start-up left running has ended by then
            took.append(ms)
            resident.append(resident_mib(server.pid))
            server.terminate()
            server.wait(timeout=30)
    # The first run also creates the store.
    print(f"binary:                {os.path.getsize(binary) / 2**20:.1f} MiB")
    print(f"exec to SERVING:       {statistics.median(took[1:]):.1f} ms (median of {runs}, worst {max(took[1:]):.1f})")
    print(f"the same, new store:   {took[0]:.1f} ms")
    print(f"resident when idle:    {statistics.median(resident[1:]):.1f} MiB")


if __name__ == "__main__":
    main()
