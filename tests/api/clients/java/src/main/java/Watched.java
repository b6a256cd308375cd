import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import user.v1.UserServiceGrpc;
import user.v1.UserServiceOuterClass.WatchUsersRequest;
import user.v1.UserServiceOuterClass.WatchUsersResponse;

/** Compares the users that were created with those that a watch told. */
final class Watched {
  /** How long a stream that ended is left alone before it is called again, in milliseconds. */
  private static final long AGAIN = 50;

  /** How long what was created may take to be told. */
  private static final long PATIENCE = TimeUnit.MINUTES.toNanos(5);

  private final UserServiceGrpc.UserServiceBlockingStub users;
  private final Count counted;
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final Set<String> expected = new HashSet<>();
  private final Set<String> told = new HashSet<>();
  private volatile String token = "";

  Watched(ManagedChannel channel, Count counted) {
    users = UserServiceGrpc.newBlockingStub(channel);
    this.counted = counted;
  }

  synchronized void expect(String id) {
    expected.add(id);
  }

  boolean hasBegun() {
    return !token.isEmpty();
  }

  void run() throws InterruptedException {
    while (!context.isCancelled()) {
      Status status = Status.OK;
      try {
        context.run(this::follow);
      } catch (StatusRuntimeException error) {
        status = error.getStatus();
      }
      counted.ended();
      if (!context.isCancelled()) {
        counted.failed("WatchUsers", status);
      }
      Thread.sleep(AGAIN);
    }
  }

  private void follow() {
    Iterator<WatchUsersResponse> messages =
        users.watchUsers(WatchUsersRequest.newBuilder().setResumeToken(token).build());
    while (messages.hasNext()) {
      WatchUsersResponse message = messages.next();
      token = message.getResumeToken();
      if (message.hasCreated() && !tell(message.getCreated().getId())) {
        counted.failed("a user was told twice");
      }
    }
  }

  private synchronized boolean tell(String id) {
    return told.add(id);
  }

  private synchronized List<String> missing() {
    return expected.stream().filter(id -> !told.contains(id)).sorted().toList();
  }

  /** Once no more users are created. */
  void end() throws InterruptedException {
    for (long until = System.nanoTime() + PATIENCE; !missing().isEmpty() && System.nanoTime() < until; ) {
      Thread.sleep(AGAIN);
    }
    context.cancel(null);
    List<String> missing = missing();
    if (!missing.isEmpty()) {
      counted.failed(missing.size() + " users were not told, such as " + missing.get(0));
    }
  }
}
