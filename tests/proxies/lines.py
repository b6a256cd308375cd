"""What single lines of the proxies' configurations are for: each test takes one away, or
changes it, and sees a call fail that does not fail with it. `make proxies` writes what
was seen into docs/PROXIES.md."""

import contextlib
import sys
import threading
import time

import grpc
from place import GRPC_PORT, PATIENCE, STUBS, Client, Place, until

sys.path.append(str(STUBS / "python" / "ours"))

from user.v1 import user_pb2, user_service_pb2 as pb, user_service_pb2_grpc  # noqa: E402

# A watch that has nothing to tell is silent for so long.
HEARTBEAT_MS = 3000
# More than 1 MiB in all: names of 250 characters, of four bytes each.
USERS, NAME = 1_200, "\U00010437" * 250
# What the programs import elsewhere.
MANY_USERS = 6_000


@contextlib.contextmanager
def users_through(place: Place, proxy: str, *changes: tuple[str, str], retries=0):
    """A client of a proxy whose configuration has these changes."""
    with grpc.insecure_channel(place.proxy(proxy, *changes), [("grpc.enable_retries", retries)]) as channel:
        yield user_service_pb2_grpc.UserServiceStub(channel)


def ends(call) -> str:
    """How a call ends: its code, and the message where it failed."""
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()[:80]}"


def list_one(users) -> str:
    return ends(lambda: users.ListUsers(pb.ListUsersRequest(page_size=1), timeout=PATIENCE))


def import_all(users, pause_after=None) -> str:
    """How an import of more than 1 MiB ends."""

    def requests():
        for number in range(USERS):
            if number == pause_after:
                time.sleep(2.5)
            user = user_pb2.User(name=NAME, email=f"line-{number}@example.com")
            yield pb.ImportUsersRequest(user_id=f"line-{number}", user=user)

    return ends(lambda: list(users.ImportUsers(requests(), timeout=5 * PATIENCE)))


def watch_silently(users) -> str:
    """How a watch ends that is silent until its first heartbeat; OK where it is still open then."""

    def follow():
        stream = users.WatchUsers(pb.WatchUsersRequest(), timeout=PATIENCE)
        for message in stream:
            if message.WhichOneof("event") == "heartbeat":
                stream.cancel()
                return

    return ends(follow)


def large_error(users) -> str:
    request = pb.BatchGetUsersRequest(ids=["BAD"] * 1000)
    return ends(lambda: users.BatchGetUsers(request, timeout=PATIENCE))


# What tests saw: the proxy, its line, the call, and how that ended without the line.
SEEN: list[tuple[str, str, str, str]] = []


def needs(place: Place, proxy: str, line: str, what: str, call, change, *others, ended="OK") -> None:
    """The call ends so with the line, and in another way with the change of it."""
    with users_through(place, proxy, *others) as users:
        saw = call(users)
        assert saw.startswith(ended), f"{proxy} with {line!r}: {saw}, not {ended}"
    with users_through(place, proxy, change, *others) as users:
        saw = call(users)
        assert not saw.startswith(ended), f"{proxy} without {line!r}: {saw}"
    SEEN.append((proxy, line, what, saw))


def nginx_cuts_an_import_at_1_mib_by_default(place: Place) -> None:
    change = ("client_max_body_size 0;", "")
    needs(place, "nginx", "client_max_body_size 0", "an import of more than 1 MiB", import_all, change)


def nginx_has_room_for_the_largest_error_by_default(place: Place) -> None:
    smaller = ("grpc_connect_timeout", "grpc_buffer_size 1k; grpc_connect_timeout")
    needs(place, "nginx", "grpc_buffer_size 4k (the default)", "the largest error, with 1k", large_error, smaller,
          ended="INVALID_ARGUMENT")


def a_proxy_cuts_a_watch_that_is_silent_for_longer_than_its_timeout(place: Place) -> None:
    for proxy, line, change in [
        ("nginx", "grpc_read_timeout 10m", ("grpc_read_timeout 10m", "grpc_read_timeout 1s")),
        ("haproxy", "timeout server 10m", ("timeout server 10m", "timeout server 1s")),
        ("caddy", "no read_timeout", ("lb_policy", "transport http {\n\t\t\tread_timeout 1s\n\t\t}\n\t\tlb_policy")),
    ]:
        needs(place, proxy, line, "a watch that is silent for 3 s, with 1s", watch_silently, change)


def nginx_cuts_an_import_that_pauses_for_longer_than_its_timeout(place: Place) -> None:
    def paused(users) -> str:
        return import_all(users, pause_after=600)

    change = ("client_body_timeout 10m", "client_body_timeout 1s")
    needs(place, "nginx", "client_body_timeout 10m", "an import that pauses for 2.5 s, with 1s", paused, change)


def calls_of_grpc_need_http_2_on_both_sides(place: Place) -> None:
    for proxy, line, change in [
        ("nginx", "listen ... http2", (" http2;", ";")),
        ("nginx", "grpc_pass grpc://", ("grpc_pass grpc://", "proxy_http_version 1.1; proxy_pass http://")),
        ("haproxy", "default-server proto h2", ("default-server proto h2", "default-server")),
        ("caddy", "h2c://", ("h2c://", "http://")),
    ]:
        needs(place, proxy, line, "any call", list_one, change)


def with_no_replica_left_callers_are_told_so_by_grpc(place: Place) -> None:
    gone = (GRPC_PORT, str(place.unused_port))
    for proxy, line, change in [
        ("nginx", "error_page", ("error_page 502 504 = @unavailable;", "")),
        ("haproxy", "http-error", ("    http-", "    # http-")),
        ("caddy", "handle_errors", ("handle_errors {", "handle_errors 999 {")),
    ]:
        needs(place, proxy, line, "any call while no replica answers", list_one, change, gone,
              ended="UNAVAILABLE: no replica answered")


def killed_while_it_writes(place: Place, proxy: str) -> str:
    """How a create ends whose replica is killed while the database holds it up."""
    # Without a policy a client repeats only what it was told that no server has begun.
    with users_through(place, proxy, retries=1) as users, place.locked():
        name = f"killed-{proxy}"
        request = pb.CreateUserRequest(user_id=name, user=user_pb2.User(name=name, email=f"{name}@example.com"))
        ended = []
        caller = threading.Thread(target=lambda: ended.append(ends(lambda: users.CreateUser(request, timeout=PATIENCE))))
        caller.start()
        holder = until("a replica holds the call", lambda: next((r for r in place.replicas if r.holds("CreateUser")), None))
        holder.kill()
        other = next(replica for replica in place.replicas if replica is not holder)
        until("the call has gone on or ended", lambda: ended or other.holds("CreateUser"))
        again = not ended
    caller.join()
    holder.start(watch_heartbeat_ms=HEARTBEAT_MS)
    return f"{ended[0]}{', made twice' if again else ''}"


def haproxy_refuses_a_call_that_its_replica_had_begun(place: Place) -> None:
    for proxy in ["nginx", "haproxy", "caddy"]:
        saw = killed_while_it_writes(place, proxy)
        SEEN.append((proxy, "", "a create whose replica is killed", saw))
        # REFUSED_STREAM, which a client takes for a call that no server has begun.
        refused = "RST_STREAM with error code 7" in saw or "made twice" in saw
        assert refused == (proxy == "haproxy"), f"{proxy}: {saw}"


def imports_by_go(place: Place, address: str, window: int, enough) -> int:
    """How many imports of all users have ended when `enough` says so of the number."""
    client = Client(place, "grpc-go", place.service_config(), MANY_USERS, {"haproxy": address}, window)
    ended = 0
    while not enough(ended):
        time.sleep(1)
        ended += sum(said["calls"] for said in client.report() if said["kind"] == "import")
    client.end()
    return ended


def an_import_through_haproxy_stops_for_good_with_small_windows(place: Place) -> None:
    address, began = place.proxy("haproxy"), time.monotonic()
    ended = imports_by_go(place, address, 4 << 20, lambda ended: ended > 0)
    # An import of users that are there by now takes no longer than the first one.
    long_enough = time.monotonic() + 2 * (time.monotonic() - began)
    stopped = imports_by_go(place, address, 0, lambda _: time.monotonic() > long_enough)
    SEEN.append(("haproxy", "", "imports by grpc-go, windows of 4 MiB", f"{ended} ended"))
    SEEN.append(("haproxy", "", "imports by grpc-go, windows of the default", f"{stopped} ended"))
    assert stopped == 0, f"{stopped} imports ended with small windows"


SHORT = [
    nginx_cuts_an_import_at_1_mib_by_default,
    nginx_has_room_for_the_largest_error_by_default,
    a_proxy_cuts_a_watch_that_is_silent_for_longer_than_its_timeout,
    calls_of_grpc_need_http_2_on_both_sides,
    with_no_replica_left_callers_are_told_so_by_grpc,
]
LONG = [
    *SHORT,
    nginx_cuts_an_import_that_pauses_for_longer_than_its_timeout,
    haproxy_refuses_a_call_that_its_replica_had_begun,
    an_import_through_haproxy_stops_for_good_with_small_windows,
]
