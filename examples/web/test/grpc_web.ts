// The client of grpc-web, with protobuf-es for its messages, for the test to call in a page.
import { create, fromBinary, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { GrpcWebClientBase, MethodDescriptor, MethodType } from "grpc-web";
import * as v1 from "../src/gen/user/v1/user_service_pb";

function method<I extends DescMessage, O extends DescMessage>(name: string, kind: string, input: I, output: O) {
  const path = `/user.v1.UserService/${name}`;
  // Types of messages are asked for and not used: the two functions know them.
  return new MethodDescriptor<MessageShape<I>, MessageShape<O>>(path, kind, Object as never, Object as never,
    (message: MessageShape<I>) => toBinary(input, message), (bytes: Uint8Array) => fromBinary(output, bytes));
}

const createUser = method("CreateUser", MethodType.UNARY, v1.CreateUserRequestSchema, v1.CreateUserResponseSchema);
const getUser = method("GetUser", MethodType.UNARY, v1.GetUserRequestSchema, v1.GetUserResponseSchema);
const watchUsers =
  method("WatchUsers", MethodType.SERVER_STREAMING, v1.WatchUsersRequestSchema, v1.WatchUsersResponseSchema);

/** What came of a user that is created, asked for, watched, and of one that there is not. */
async function calls(server: string, format: string, email: string) {
  const client = new GrpcWebClientBase({ format });
  const call = <I, O>(what: MethodDescriptor<I, O>, request: I) =>
    client.unaryCall(server + what.getName(), request, {}, what);
  const made = await call(createUser, create(v1.CreateUserRequestSchema, { user: { name: "Ada", email, age: 36 } }));
  const id = (made as MessageShape<typeof v1.CreateUserResponseSchema>).user!.id;
  const key = (value: string) => create(v1.GetUserRequestSchema, { key: { case: "id", value } });
  const found = await call(getUser, key(id)) as MessageShape<typeof v1.GetUserResponseSchema>;
  const error = await call(getUser, key("nobody")).then(() => undefined, (error) => error);
  const watched = format !== "text" ? undefined : await new Promise<string>((resolve, reject) => {
    const request = create(v1.WatchUsersRequestSchema, { initialState: true });
    const stream = client.serverStreaming(server + watchUsers.getName(), request, {}, watchUsers);
    stream.on("error", reject);
    stream.on("data", (message) => {
      const { event } = message as MessageShape<typeof v1.WatchUsersResponseSchema>;
      if (event.case === "existing" && event.value.id === id) {
        stream.cancel();
        resolve(event.value.name);
      }
    });
  });
  return { found: found.user!.email, code: error?.code, message: error?.message,
    details: Boolean(error?.metadata?.["grpc-status-details-bin"]), watched };
}

Object.assign(window, { calls });
