import io.grpc.Status;
import java.util.HashMap;
import java.util.Map;

/** What one kind of calls by one target has seen since the last report. */
final class Count {
  final String target;
  final String kind;
  private int calls;
  private Map<String, Integer> failures = new HashMap<>();

  Count(String target, String kind) {
    this.target = target;
    this.kind = kind;
  }

  synchronized void ended() {
    calls++;
  }

  synchronized void failed(String what) {
    failures.merge(what, 1, Integer::sum);
  }

  void failed(String method, Status status) {
    String message = String.valueOf(status.getDescription());
    failed(method + " " + status.getCode() + ": " + message.substring(0, Math.min(160, message.length())));
  }

  synchronized Map<String, Object> report() {
    Map<String, Object> said = Map.of("target", target, "kind", kind, "calls", calls, "failed", failures);
    calls = 0;
    failures = new HashMap<>();
    return said;
  }
}
