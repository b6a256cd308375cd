import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executor;

/**
 * What the server is shown, as the environment says: TLS_CA names the authorities of the
 * server, and without it there is no TLS. TLS_CERT and TLS_KEY name the client's certificate,
 * and TOKEN_FILE a token that goes with each call.
 */
final class Shown {
  private Shown() {}

  static ChannelCredentials credentials() throws IOException {
    String authorities = System.getenv("TLS_CA");
    if (authorities == null) {
      return InsecureChannelCredentials.create();
    }
    TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder().trustManager(new File(authorities));
    String certificate = System.getenv("TLS_CERT");
    if (certificate != null) {
      tls.keyManager(new File(certificate), new File(System.getenv("TLS_KEY")));
    }
    String token = System.getenv("TOKEN_FILE");
    if (token == null) {
      return tls.build();
    }
    return CompositeChannelCredentials.create(tls.build(), new Bearer(Files.readString(Path.of(token)).strip()));
  }

  private static final class Bearer extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private final String value;

    Bearer(String token) {
      value = "Bearer " + token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      Metadata headers = new Metadata();
      headers.put(AUTHORIZATION, value);
      applier.apply(headers);
    }
  }
}
