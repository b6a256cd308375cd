"""The article's calls with this project's superset of its messages: ids, and
`error` where a user is missing.

usage: article_by_id.py ADDR
"""

import sys

import grpc
import user_pb2 as pb
import user_pb2_grpc
from checks import check, fails


def run(addr):
    with grpc.insecure_channel(addr) as channel:
        stub = user_pb2_grpc.UserServiceStub(channel)

        def get(**key):
            return stub.GetUser(pb.UserRequest(user=pb.User(**key)))

        def create(**fields):
            return stub.CreateUser(pb.CreateUserRequest(user=pb.User(**fields))).user

        for nobody in [{"id": "1"}, {"email": "nobody@example.com"}, {}, {"id": "Not An Id"}]:
            missing = get(**nobody)
            check(missing.error == "User not found", f"get {nobody} answers {missing}")
            check(not missing.HasField("user"), f"get {nobody} answers {missing}")

        jane = create(id="1", name="Jane Doe", email="Jane@Example.com", age=29)
        check((jane.id, jane.email) == ("1", "jane@example.com"), f"create under an id: {jane}")
        found = get(id="1")
        check(found.user == jane and not found.error, f"get by id: {found}")

        jane = create(id="1", name="Jane Roe", email="jane.roe@example.com", age=30)
        check(get(id="1").user == jane, "create under a known id does not overwrite")
        check(get(email="jane@example.com").error, "the address that was given up still finds somebody")

        john = create(name="John Doe", email="john@example.com", age=30)
        check(len(john.id) == 36, f"create without an id: {john}")
        older = create(name="John Doe", email="JOHN@example.com", age=31)
        check((older.id, older.age) == (john.id, 31), f"create by a known e-mail: {older}")

        fails("create with another's e-mail", grpc.StatusCode.ALREADY_EXISTS,
              lambda: create(id="2", name="J", email="john@example.com"))
        fails("create with an id alone", grpc.StatusCode.INVALID_ARGUMENT, lambda: create(id="3"))
    print("ok")


if __name__ == "__main__":
    run(sys.argv[1])
