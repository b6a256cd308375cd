"""Every rpc of user.v1 through grpcio, then health and reflection.

usage: user_v1.py ADDR
"""

import sys
import uuid

import grpc
from checks import channel as connect, check, fails
from google.protobuf import descriptor_pool
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from user.v1 import user_pb2, user_service_pb2 as pb, user_service_pb2_grpc

Code = grpc.StatusCode


def create_and_read(users):
    ada = users.CreateUser(pb.CreateUserRequest(
        user=user_pb2.User(name=" Ada Lovelace ", email="Ada.Py@Example.com", age=36))).user
    check((ada.name, ada.email, ada.age) == ("Ada Lovelace", "ada.py@example.com", 36), f"create: {ada}")
    check(uuid.UUID(ada.id).version == 7, f"create: the id {ada.id} is no UUIDv7")
    check(ada.etag[0] == ada.etag[-1] == '"', f"create: the etag {ada.etag} is not quoted")
    check(ada.create_time == ada.update_time and ada.create_time.seconds > 0, f"create: times {ada}")
    check(users.GetUser(pb.GetUserRequest(id=ada.id)).user == ada, "get by id")
    check(users.GetUser(pb.GetUserRequest(email="ADA.PY@example.com")).user == ada, "get by e-mail")

    found = fails("create, e-mail taken", Code.ALREADY_EXISTS, lambda: users.CreateUser(
        pb.CreateUserRequest(user=user_pb2.User(name="A", email="ada.py@EXAMPLE.com"))))
    check("ResourceInfo" in found, "create, e-mail taken: no ResourceInfo")
    found = fails("create, id taken", Code.ALREADY_EXISTS, lambda: users.CreateUser(
        pb.CreateUserRequest(user=user_pb2.User(name="A", email="a.py@example.com"), user_id=ada.id)))
    check("ResourceInfo" in found, "create, id taken: no ResourceInfo")
    found = fails("get a missing user", Code.NOT_FOUND, lambda: users.GetUser(pb.GetUserRequest(id="nobody")))
    check("ResourceInfo" in found, "get a missing user: no ResourceInfo")
    return ada


def refuse(users):
    found = fails("create with bad fields", Code.INVALID_ARGUMENT, lambda: users.CreateUser(
        pb.CreateUserRequest(user=user_pb2.User(name="\n", email="none", age=-1), request_id="x", user_id="Ä")))
    fields = {violation.field for violation in found["BadRequest"].field_violations}
    wanted = {"user.name", "user.email", "user.age", "request_id", "user_id"}
    check(fields == wanted, f"create with bad fields: {fields} are refused, not {wanted}")


def repeat(users):
    request = pb.CreateUserRequest(
        user=user_pb2.User(name="Grace", email="grace.py@example.com"), request_id=str(uuid.uuid4()))
    first = users.CreateUser(request)
    check(users.CreateUser(request) == first, "a repeated create answers something else")
    request.user.age = 1
    fails("the same request_id for something else", Code.INVALID_ARGUMENT,
          lambda: users.CreateUser(request), "REQUEST_ID_REUSED")

    update = pb.UpdateUserRequest(
        user=user_pb2.User(id=first.user.id, age=50, etag=first.user.etag), request_id=str(uuid.uuid4()))
    once = users.UpdateUser(update)
    check(users.UpdateUser(update) == once, "a repeated update answers something else")

    delete = pb.DeleteUserRequest(id=first.user.id, request_id=str(uuid.uuid4()))
    users.DeleteUser(delete)
    users.DeleteUser(delete)


def update(users, ada):
    changed = users.UpdateUser(pb.UpdateUserRequest(
        user=user_pb2.User(id=ada.id, name="not in the mask", age=37, etag=ada.etag),
        update_mask=FieldMask(paths=["age", "create_time"]))).user
    check((changed.age, changed.name) == (37, ada.name), f"update: {changed}")
    check(changed.etag != ada.etag and changed.create_time == ada.create_time, f"update: {changed}")
    fails("update with an old etag", Code.ABORTED, lambda: users.UpdateUser(
        pb.UpdateUserRequest(user=user_pb2.User(id=ada.id, age=38, etag=ada.etag))))
    fails("update of an unknown path", Code.INVALID_ARGUMENT, lambda: users.UpdateUser(
        pb.UpdateUserRequest(user=user_pb2.User(id=ada.id), update_mask=FieldMask(paths=["shoe_size"]))))
    checked = pb.UpdateUserRequest(user=user_pb2.User(id=ada.id, age=99), validate_only=True)
    users.UpdateUser(checked)
    check(users.GetUser(pb.GetUserRequest(id=ada.id)).user == changed, "validate_only wrote something")
    cleared = users.UpdateUser(pb.UpdateUserRequest(
        user=user_pb2.User(id=ada.id, name="Ada", email=ada.email), update_mask=FieldMask(paths=["*"]))).user
    check((cleared.name, cleared.age) == ("Ada", 0), f"update of all fields: {cleared}")


def pages(users):
    ids = [f"py-{n}" for n in range(5)]
    for name in ids:
        users.CreateUser(pb.CreateUserRequest(
            user=user_pb2.User(name=name, email=f"{name}@example.com"), user_id=name))
    seen, token, size = [], "", 1
    while True:
        page = users.ListUsers(pb.ListUsersRequest(page_size=size, page_token=token))
        check(len(page.users) <= size, f"list: {len(page.users)} users on a page of {size}")
        seen += [user.id for user in page.users]
        token, size = page.next_page_token, size + 1
        if not token:
            break
    check(seen == sorted(set(seen)) and set(ids) <= set(seen), f"list: {seen}")
    fails("list with a negative page size", Code.INVALID_ARGUMENT,
          lambda: users.ListUsers(pb.ListUsersRequest(page_size=-1)))

    got = users.BatchGetUsers(pb.BatchGetUsersRequest(ids=["py-3", "py-0", "py-3", "nobody"], allow_missing=True))
    check([user.id for user in got.users] == ["py-3", "py-0", "py-3"], f"batch get: {got}")
    check(got.missing_ids == ["nobody"], f"batch get: {got}")
    fails("batch get with a missing id", Code.NOT_FOUND,
          lambda: users.BatchGetUsers(pb.BatchGetUsersRequest(ids=["py-0", "nobody"])))
    fails("batch get of nothing", Code.INVALID_ARGUMENT, lambda: users.BatchGetUsers(pb.BatchGetUsersRequest()))

    users.DeleteUser(pb.DeleteUserRequest(id="py-0"))
    fails("delete again", Code.NOT_FOUND, lambda: users.DeleteUser(pb.DeleteUserRequest(id="py-0")))
    users.DeleteUser(pb.DeleteUserRequest(id="py-0", allow_missing=True))


def transport(users):
    try:
        users.ListUsers(pb.ListUsersRequest(), timeout=-1)
        check(False, "a deadline that has passed went through")
    except grpc.RpcError as error:
        check(error.code() == Code.DEADLINE_EXCEEDED, f"a deadline that has passed: {error}")
    page = users.ListUsers(pb.ListUsersRequest(page_size=2), timeout=20, compression=grpc.Compression.Gzip)
    check(len(page.users) == 2, f"list, compressed: {page}")
    futures = [users.ListUsers.future(pb.ListUsersRequest(page_size=2), timeout=20) for _ in range(300)]
    check(all(future.result() == page for future in futures), "300 calls at once")


def infrastructure(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", "liveness", "user.v1.UserService", "UserService"]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        check(answer.status == health_pb2.HealthCheckResponse.SERVING, f"health of {name!r}: {answer}")
    watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
    check(next(watch).status == health_pb2.HealthCheckResponse.SERVING, "health watch")
    watch.cancel()

    # This library only speaks v1alpha.
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    check({"UserService", "user.v1.UserService", "grpc.health.v1.Health"} <= services, f"reflection: {services}")
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("user.v1.UserService").FindMethodByName("UpdateUser")
    check("update_mask" in method.input_type.fields_by_name, "reflection: UpdateUser has no update_mask")
    pool.FindMessageTypeByName("google.rpc.BadRequest")


def run(addr):
    with connect(addr) as channel:
        users = user_service_pb2_grpc.UserServiceStub(channel)
        ada = create_and_read(users)
        refuse(users)
        repeat(users)
        update(users, ada)
        pages(users)
        transport(users)
        infrastructure(channel)
    print("ok")


if __name__ == "__main__":
    run(sys.argv[1])
