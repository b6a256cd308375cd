import com.google.gson.Gson;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/**
 * Makes every call of both contracts with grpc-java, by several targets concurrently, as
 * go-mixed does (tests/proxies/README.md).
 *
 * <p>With TLS_CA in the environment, all of it by TLS (Shown).
 *
 * <p>usage: Mixed SERVICE_CONFIG USERS WINDOW NAME=ADDR...
 */
public final class Mixed {
  /**
   * What a server may send before it is told to go on, in bytes. 0: what the library takes.
   */
  private static int window;

  private Mixed() {}

  public static void main(String[] arguments) throws Exception {
    Map<?, ?> config = new Gson().fromJson(Files.readString(Path.of(arguments[0])), Map.class);
    int users = Integer.parseInt(arguments[1]);
    window = Integer.parseInt(arguments[2]);
    CountDownLatch stop = new CountDownLatch(1);
    List<Count> counts = new ArrayList<>();
    List<Thread> calling = new ArrayList<>();
    List<Watched> watches = new ArrayList<>();
    for (String argument : List.of(arguments).subList(3, arguments.length)) {
      String target = argument.substring(0, argument.indexOf('='));
      String addr = argument.substring(target.length() + 1);
      ManagedChannel bare = channel(addr).disableRetry().disableServiceConfigLookUp().build();
      @SuppressWarnings("unchecked")
      ManagedChannel retried = channel(addr).enableRetry().defaultServiceConfig((Map<String, ?>) config).build();
      Watched watched = new Watched(retried, counted(counts, target, "watch"));
      watches.add(watched);
      Caller withoutRetry = new Caller(bare, counted(counts, target, "bare"), null);
      Caller withRetry = new Caller(retried, counted(counts, target, "retried"), watched);
      Imported imported = new Imported(retried, counted(counts, target, "import"), users);
      calling.add(start(() -> withoutRetry.run(stop)));
      calling.add(start(() -> withRetry.run(stop)));
      calling.add(start(() -> imported.run(stop)));
    }
    List<Thread> watching = new ArrayList<>();
    for (Watched watched : watches) {
      watching.add(start(watched::run));
    }
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    while (commands.readLine() != null) {
      report(counts);
    }
    stop.countDown();
    for (Thread thread : calling) {
      thread.join();
    }
    for (Watched watched : watches) {
      watched.end();
    }
    for (Thread thread : watching) {
      thread.join();
    }
    report(counts);
    System.exit(0);
  }

  private static NettyChannelBuilder channel(String addr) throws IOException {
    NettyChannelBuilder channel = NettyChannelBuilder.forTarget("dns:///" + addr, Shown.credentials());
    return window == 0 ? channel : channel.flowControlWindow(window);
  }

  private static Count counted(List<Count> counts, String target, String kind) {
    Count count = new Count(target, kind);
    counts.add(count);
    return count;
  }

  private interface Work {
    void run() throws Exception;
  }

  private static Thread start(Work work) {
    Thread thread = new Thread(() -> {
      try {
        work.run();
      } catch (Exception failure) {
        failure.printStackTrace();
        System.exit(1);
      }
    });
    thread.start();
    return thread;
  }

  private static void report(List<Count> counts) {
    System.out.println(new Gson().toJson(counts.stream().map(Count::report).toList()));
    System.out.flush();
  }
}
