"""Checks with grpcio, which none of the load generators uses, that a server
answers rightly: check.py PORT v1|article|constant [--tls-ca FILE] [--tls-cert FILE
--tls-key FILE] [--token-file FILE]. Stores user u-1 where it can
be stored, reads it back, and asks for one that is not there. Prints how many
bytes of DATA the answer to a GetUser of u-1 has."""

import argparse
import pathlib
import time

import grpc
import user_pb2 as article
from user.v1 import user_pb2, user_service_pb2 as v1

FIELDS = {"name": "Ada Lovelace", "email": "ada@example.com", "age": 36}
PATIENCE = 60


def call(channel, method, request, response):
    """A unary call; waits for a server that is not there yet, or still starting."""
    unary = channel.unary_unary(method, request_serializer=lambda m: m.SerializeToString(),
                                response_deserializer=response.FromString)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return unary(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
        time.sleep(0.05)


def expect(code, ask):
    try:
        ask()
    except grpc.RpcError as error:
        assert error.code() == code, error
    else:
        raise SystemExit(f"the answer was OK instead of {code}")


def check_v1(channel):
    service = "/user.v1.UserService/"

    def get(user_id):
        return call(channel, service + "GetUser", v1.GetUserRequest(id=user_id), v1.GetUserResponse)

    create = v1.CreateUserRequest(user=user_pb2.User(**FIELDS), user_id="u-1")
    try:
        call(channel, service + "CreateUser", create, v1.CreateUserResponse)
    except grpc.RpcError as error:
        # A store that was kept holds it already.
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS, error
    expect(grpc.StatusCode.NOT_FOUND, lambda: get("absent"))
    return get("u-1")


def check_article(channel, constant):
    user = article.User(id="u-1", **FIELDS)

    def get(user_id):
        request = article.UserRequest(user=article.User(id=user_id))
        return call(channel, "/UserService/GetUser", request, article.UserResponse)

    if not constant:
        create = article.CreateUserRequest(user=user)
        answer = call(channel, "/UserService/CreateUser", create, article.CreateUserResponse)
        assert answer.user == user, answer
        expect(grpc.StatusCode.NOT_FOUND, lambda: get("absent"))
    return get("u-1")


def open_channel(given):
    address = f"127.0.0.1:{given.port}"
    channel = grpc.insecure_channel(address)
    if given.tls_ca:
        files = [path and path.read_bytes() for path in (given.tls_ca, given.tls_key, given.tls_cert)]
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*files))
    if given.token_file:
        channel = grpc.intercept_channel(channel, Bearer(given.token_file.read_text()))
    return channel


class Bearer(grpc.UnaryUnaryClientInterceptor):
    """Sends a token with each call, also without TLS."""

    def __init__(self, token):
        self.metadata = [("authorization", f"Bearer {token}")]

    def intercept_unary_unary(self, continuation, details, request):
        changed = Details()
        for name in ("method", "timeout", "credentials", "wait_for_ready", "compression"):
            setattr(changed, name, getattr(details, name, None))
        changed.metadata = [*(details.metadata or []), *self.metadata]
        return continuation(changed, request)


class Details(grpc.ClientCallDetails):
    """What the interceptor may change."""


def main():
    parser = argparse.ArgumentParser()
    for name in ("port", "contract"):
        parser.add_argument(name)
    for name in ("--tls-ca", "--tls-cert", "--tls-key", "--token-file"):
        parser.add_argument(name, type=pathlib.Path)
    given = parser.parse_args()
    contract = given.contract
    channel = open_channel(given)
    answer = check_v1(channel) if contract == "v1" else check_article(channel, contract == "constant")
    found = {name: getattr(answer.user, name) for name in FIELDS}
    assert found == FIELDS and answer.user.id == "u-1", answer
    print(answer.ByteSize() + 5)


if __name__ == "__main__":
    main()
