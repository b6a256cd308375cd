"""What a reader of the article runs: look a user up, create it, look again.

The stubs come from the article's own messages, which know neither ids nor errors.
usage: article_client.py [ADDR]
"""

import sys

import grpc
import user_pb2
import user_pb2_grpc


def run(addr):
    with grpc.insecure_channel(addr) as channel:
        stub = user_pb2_grpc.UserServiceStub(channel)

        response = stub.GetUser(user_pb2.UserRequest(user=user_pb2.User(email="john@example.com")))
        print(f"Found: {response.user}")

        user = user_pb2.User(name="John Doe", email="john@example.com", age=30)
        created = stub.CreateUser(user_pb2.CreateUserRequest(user=user))
        print(f"Created: {created.user}")

        response = stub.GetUser(user_pb2.UserRequest(user=user_pb2.User(email="john@example.com")))
        print(f"Found: {response.user}")


if __name__ == "__main__":
    run(sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")
