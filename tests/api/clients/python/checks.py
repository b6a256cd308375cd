"""What the Python clients check answers with."""

import os
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def channel(addr):
    """A channel, by TLS where TLS_CA names the authorities of the server, and with the token of
    TOKEN_FILE."""
    if "TLS_CA" not in os.environ:
        return grpc.insecure_channel(addr)
    names = ("TLS_CA", "TLS_KEY", "TLS_CERT")
    content = [Path(os.environ[name]).read_bytes() if name in os.environ else None for name in names]
    shown = grpc.ssl_channel_credentials(*content)
    if file := os.environ.get("TOKEN_FILE"):
        token = grpc.access_token_call_credentials(Path(file).read_text().strip())
        shown = grpc.composite_channel_credentials(shown, token)
    return grpc.secure_channel(addr, shown)


def check(ok, message):
    """Ends the program where the server broke its word."""
    if not ok:
        sys.exit(f"FAILED: {message}")


def details(error):
    """The details of an error by their names, such as `ErrorInfo`."""
    found = {}
    for packed in rpc_status.from_call(error).details:
        name = packed.TypeName().removeprefix("google.rpc.")
        detail = getattr(error_details_pb2, name)()
        check(packed.Unpack(detail), f"{name} cannot be decoded")
        check(name not in found, f"{name} is there twice")
        found[name] = detail
    return found


def fails(what, code, call, reason=None):
    """Checks that a call fails so, and returns the details of its error."""
    try:
        answer = call()
    except grpc.RpcError as error:
        check(error.code() == code, f"{what}: {error.code()} {error.details()}, not {code}")
        check("@" not in error.details(), f"{what}: an address in the message {error.details()}")
        found = details(error)
        check("ErrorInfo" in found, f"{what}: no ErrorInfo")
        info = found["ErrorInfo"]
        check(info.domain == "user-service", f"{what}: domain {info.domain}")
        check(info.reason and reason in (None, info.reason), f"{what}: reason {info.reason}, not {reason}")
        return found
    return check(False, f"{what} went through: {answer}")
