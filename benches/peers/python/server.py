"""The article's server: a dict behind grpcio's thread pool. server.py PORT"""

import sys
from concurrent import futures

import grpc
import user_pb2
import user_pb2_grpc


class UserService(user_pb2_grpc.UserServiceServicer):
    def __init__(self):
        self.users = {}

    def GetUser(self, request, context):
        user = self.users.get(request.user.id)
        if user is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "User not found")
        return user_pb2.UserResponse(user=user)

    def CreateUser(self, request, context):
        self.users[request.user.id] = request.user
        return user_pb2.CreateUserResponse(user=request.user)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
user_pb2_grpc.add_UserServiceServicer_to_server(UserService(), server)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
