// Changes as they happen, over any number of connections.
import { Code, ConnectError } from "@connectrpc/connect";
import type { Users } from "./client";
import type { WatchUsersResponse } from "./gen/user/v1/user_service_pb";

/** How long to wait before the first attempt to reconnect, and at most. */
const FIRST_WAIT_MS = 250;
const MAX_WAIT_MS = 10_000;

export interface Watcher {
  /** The stream tells changes, or does not until it is connected again. */
  live(isLive: boolean): void;
  event(event: WatchUsersResponse["event"]): void;
}

/** Tells every change exactly once: each attempt goes on behind the last message that came. */
export async function watch(users: Users, watcher: Watcher): Promise<never> {
  let resumeToken = "";
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, MAX_WAIT_MS)) {
    try {
      for await (const message of users.watchUsers({ resumeToken })) {
        ({ resumeToken } = message);
        wait = FIRST_WAIT_MS;
        watcher.live(true);
        watcher.event(message.event);
      }
    } catch (error) {
      // The change log does not go back that far, or is another one.
      if (ConnectError.from(error).code === Code.OutOfRange) resumeToken = "";
    }
    watcher.live(false);
    // With jitter, so that all pages do not come back together.
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
  }
}
