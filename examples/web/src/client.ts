// The client, and what a page makes of its errors.
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { BadRequestSchema } from "./gen/google/rpc/error_details_pb";
import { UserService } from "./gen/user/v1/user_service_pb";

export type Users = Client<typeof UserService>;

export function connect(baseUrl: string): Users {
  // GET for calls without side effects, which a browser needs no preflight for.
  return createClient(UserService, createConnectTransport({ baseUrl, useHttpGet: true }));
}

/** What is wrong with each field, by its path, such as `user.email`. */
export function violations(error: ConnectError): Map<string, string> {
  const requests = error.findDetails(BadRequestSchema);
  return new Map(requests.flatMap((request) => request.fieldViolations.map((v) => [v.field, v.description] as const)));
}

/** What a person is told. */
export function said(error: ConnectError): string {
  switch (error.code) {
    case Code.NotFound: return "There is no such user.";
    case Code.AlreadyExists: return "There is a user with this e-mail address.";
    case Code.Aborted: return "This user was changed since it was loaded.";
    case Code.Unavailable: case Code.Unknown: return "The server cannot be reached. Try again.";
    default: return error.rawMessage;
  }
}
