"""Tests that are functions of Python, told as `cargo test` tells its own, so that
tools/tally.sh sums both."""

import time
import traceback


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
