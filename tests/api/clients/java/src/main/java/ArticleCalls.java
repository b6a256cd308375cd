import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** The calls of the article's contract. Its file has no package, and neither has this one. */
final class ArticleCalls {
  private final UserServiceGrpc.UserServiceBlockingStub users;

  ArticleCalls(ManagedChannel channel) {
    users = UserServiceGrpc.newBlockingStub(channel);
  }

  void createUser(String id) {
    UserOuterClass.User user =
        UserOuterClass.User.newBuilder().setId(id).setName(id).setEmail(id + "@example.com").build();
    soon().createUser(UserOuterClass.CreateUserRequest.newBuilder().setUser(user).build());
  }

  void getUser(String id) {
    UserOuterClass.User user = UserOuterClass.User.newBuilder().setId(id).build();
    soon().getUser(UserOuterClass.UserRequest.newBuilder().setUser(user).build());
  }

  private UserServiceGrpc.UserServiceBlockingStub soon() {
    return users.withDeadlineAfter(Caller.CALL_SECONDS, TimeUnit.SECONDS);
  }
}
