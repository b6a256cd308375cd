#!/usr/bin/env python3
"""Passes the output of `cargo test` through as it comes, and ends it with the sum of all its
summaries: COMMAND | tally.py. Fails where a test failed, and where none ran at all.

Tests that are functions of Python use it as a module, and are told as `cargo test` tells its
own, so that one sum has both."""

import re
import signal
import sys
import time
import traceback

SUMMARY = re.compile(rb"test result: .* (\d+) passed; (\d+) failed\b")


def tried(name, test, *arguments, log=list):
    """Whether a test passes. What `log` returns is printed for one that fails."""
    began = time.monotonic()
    try:
        test(*arguments)
    except (Exception, SystemExit):
        said = "\n".join([f"---- {name}", traceback.format_exc(), *log()])
        print(f"{said}\ntest {name} ... FAILED", flush=True)
        return False
    print(f"test {name} ... ok, {time.monotonic() - began:.0f} s", flush=True)
    return True


def summary(passed, failed, began):
    """The line that is summed."""
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; "
          f"finished in {time.monotonic() - began:.0f}s", flush=True)


def main():
    # Ctrl-C ends it as it ends the tests.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    passed = failed = 0
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if found := SUMMARY.match(line):
            passed, failed = passed + int(found[1]), failed + int(found[2])
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
