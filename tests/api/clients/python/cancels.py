"""Calls of grpcio that are given up, BURST of them and then one in ten of CALLS, over one
connection that keeps itself alive.

usage: cancels.py ADDR
"""

import os
import sys

import grpc
from checks import check
from user.v1 import user_service_pb2 as pb, user_service_pb2_grpc

BURST = int(os.environ.get("BURST", "2000"))
CALLS = int(os.environ.get("CALLS", "1000"))
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
]


def main(addr):
    with grpc.insecure_channel(addr, options=KEEPALIVE) as channel:
        users = user_service_pb2_grpc.UserServiceStub(channel)
        request = pb.ListUsersRequest()
        users.ListUsers(request)
        for _ in range(BURST // 100):
            calls = [users.ListUsers.future(request) for _ in range(100)]
            for call in calls:
                call.cancel()
        answered = 0
        for first in range(0, CALLS, 50):
            calls = [users.ListUsers.future(request) for _ in range(first, first + 50)]
            for number, call in enumerate(calls):
                if number % 10 == 0:
                    call.cancel()
            for number, call in enumerate(calls):
                if number % 10 != 0:
                    call.result()
                    answered += 1
        check(answered == CALLS * 9 // 10, f"{answered} calls of {CALLS} were answered")
    print("ok")


main(*sys.argv[1:])
