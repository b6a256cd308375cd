import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import user.v1.UserOuterClass.User;
import user.v1.UserServiceGrpc;
import user.v1.UserServiceOuterClass.ImportUsersRequest;
import user.v1.UserServiceOuterClass.ImportUsersResponse;

/**
 * Imports the same users over and over, all of them at least once. A new stream sends what
 * the last one has not answered.
 */
final class Imported {
  /** Long, because machines may be slow. */
  private static final long DEADLINE_SECONDS = 300;

  private final UserServiceGrpc.UserServiceStub users;
  private final Count counted;
  private final int total;

  Imported(ManagedChannel channel, Count counted, int total) {
    users = UserServiceGrpc.newStub(channel);
    this.counted = counted;
    this.total = total;
  }

  void run(CountDownLatch stop) throws Exception {
    int answered = 0;
    boolean whole = false;
    while (!stop.await(Caller.PAUSE, TimeUnit.MILLISECONDS) || !whole) {
      Stream stream = new Stream(answered);
      users.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS).importUsers(stream);
      Status status = stream.ended.get();
      counted.ended();
      answered = stream.answered;
      if (!status.isOk()) {
        counted.failed("ImportUsers", status);
      }
      if (status.isOk() && answered < total) {
        counted.failed("an import ended with OK after " + answered + " users of " + total);
      }
      whole |= answered == total;
      answered %= total;
    }
  }

  private final class Stream implements ClientResponseObserver<ImportUsersRequest, ImportUsersResponse> {
    final CompletableFuture<Status> ended = new CompletableFuture<>();
    volatile int answered;
    private int sent;
    private boolean closed;

    Stream(int first) {
      answered = first;
      sent = first;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<ImportUsersRequest> requests) {
      requests.setOnReadyHandler(() -> send(requests));
    }

    private void send(ClientCallStreamObserver<ImportUsersRequest> requests) {
      for (; requests.isReady() && sent < total; sent++) {
        String id = "import-" + sent;
        User user = User.newBuilder().setName("x".repeat(200)).setEmail(id + "@example.com").build();
        requests.onNext(ImportUsersRequest.newBuilder().setUserId(id).setUser(user).build());
      }
      if (sent == total && !closed) {
        closed = true;
        requests.onCompleted();
      }
    }

    @Override
    public void onNext(ImportUsersResponse answer) {
      answered++;
      if (answer.hasError()) {
        counted.failed("an imported user was answered " + answer.getError().getMessage());
      }
    }

    @Override
    public void onError(Throwable error) {
      ended.complete(Status.fromThrowable(error));
    }

    @Override
    public void onCompleted() {
      ended.complete(Status.OK);
    }
  }
}
