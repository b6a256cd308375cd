import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import grpc.health.v1.HealthGrpc;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Collections;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import user.v1.UserOuterClass.User;
import user.v1.UserServiceGrpc;
import user.v1.UserServiceOuterClass.BatchGetUsersRequest;
import user.v1.UserServiceOuterClass.CreateUserRequest;
import user.v1.UserServiceOuterClass.DeleteUserRequest;
import user.v1.UserServiceOuterClass.GetUserRequest;
import user.v1.UserServiceOuterClass.ListUsersRequest;
import user.v1.UserServiceOuterClass.UpdateUserRequest;

/** Makes one round of calls after the other. */
final class Caller {
  /** How long a caller waits between two rounds, in milliseconds. */
  static final long PAUSE = 200;

  /** The deadline of a call: long, because machines may be slow. */
  static final long CALL_SECONDS = 60;

  private final Count counted;
  private final Watched watched;
  private final UserServiceGrpc.UserServiceBlockingStub users;
  private final ArticleCalls article;
  private final HealthGrpc.HealthBlockingStub health;

  Caller(ManagedChannel channel, Count counted, Watched watched) {
    this.counted = counted;
    this.watched = watched;
    this.users = UserServiceGrpc.newBlockingStub(channel);
    this.article = new ArticleCalls(channel);
    this.health = HealthGrpc.newBlockingStub(channel);
  }

  void run(CountDownLatch stop) throws InterruptedException {
    for (int number = 0; !stop.await(PAUSE, TimeUnit.MILLISECONDS); number++) {
      String process = String.valueOf(ProcessHandle.current().pid());
      round(String.join("-", "java", process, counted.target, counted.kind, String.valueOf(number)));
    }
  }

  /** No round goes on after a call that failed, because what follows would fail with it. */
  private void round(String id) {
    // A watch that has not begun tells nothing of what is created before.
    boolean begun = watched != null && watched.hasBegun();
    User user = User.newBuilder().setName(id).setEmail(id + "@example.com").setAge(36).build();
    CreateUserRequest create =
        CreateUserRequest.newBuilder().setUserId(id).setRequestId(uuid()).setUser(user).build();
    UpdateUserRequest update = UpdateUserRequest.newBuilder()
        .setRequestId(uuid()).setUser(User.newBuilder().setId(id).setAge(37)).build();
    BatchGetUsersRequest batch = BatchGetUsersRequest.newBuilder().addIds(id).addIds(id).build();
    BatchGetUsersRequest bad =
        BatchGetUsersRequest.newBuilder().addAllIds(Collections.nCopies(1000, "BAD")).build();
    CreateUserRequest large =
        CreateUserRequest.newBuilder().setUser(User.newBuilder().setName("x".repeat(300_000))).build();
    DeleteUserRequest delete = DeleteUserRequest.newBuilder().setId(id).setRequestId(uuid()).build();
    if (!works("CreateUser", () -> soon().createUser(create))) {
      return;
    }
    if (begun) {
      watched.expect(id);
    }
    boolean goesOn = works("GetUser", () -> soon().getUser(GetUserRequest.newBuilder().setId(id).build()))
        && works("UpdateUser", () -> soon().updateUser(update))
        && works("BatchGetUsers", () -> soon().batchGetUsers(batch))
        && works("ListUsers", () -> soon().listUsers(ListUsersRequest.newBuilder().setPageSize(1000).build()))
        && works("article CreateUser", () -> article.createUser(id))
        && works("article GetUser", () -> article.getUser(id))
        && works("health Check", this::check)
        && ends("largest error", Status.Code.INVALID_ARGUMENT, "INVALID_FIELDS", () -> soon().batchGetUsers(bad))
        && ends("message too large", Status.Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", () -> soon().createUser(large))
        && works("DeleteUser", () -> soon().deleteUser(delete));
  }

  private UserServiceGrpc.UserServiceBlockingStub soon() {
    return users.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private void check() {
    health.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
        .check(grpc.health.v1.HealthOuterClass.HealthCheckRequest.newBuilder().setService("liveness").build());
  }

  private boolean works(String method, Runnable call) {
    return ends(method, Status.Code.OK, "", call);
  }

  /** Counts a call that has to end with a code, and with its reason in the details. */
  private boolean ends(String method, Status.Code code, String reason, Runnable call) {
    Status status = Status.OK;
    String found = "";
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      status = error.getStatus();
      found = reasonOf(error);
    }
    counted.ended();
    if (status.getCode() == code && found.equals(reason)) {
      return true;
    }
    counted.failed(method, status);
    return false;
  }

  private static String reasonOf(StatusRuntimeException error) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    try {
      for (com.google.protobuf.Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          return detail.unpack(ErrorInfo.class).getReason();
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      return broken.toString();
    }
    return "";
  }

  private static String uuid() {
    return UUID.randomUUID().toString();
  }
}
