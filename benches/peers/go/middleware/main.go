// grpc-go as a production service: go-grpc-middleware's recovery and slog
// interceptors, its Prometheus metrics with the histogram of handling times,
// otelgrpc (1% of the calls, in batches, to a closed port), health, reflection,
// keepalive, 100 streams a connection. go-middleware PORT METRICS_PORT.
package main

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"peer"
	"peer/pb"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: go-middleware PORT METRICS_PORT")
	}
	trace()
	metrics := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram())
	s := server(metrics)
	go serveMetrics(metrics, os.Args[2])
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Serve(l))
}

func server(metrics *grpcprom.ServerMetrics) *grpc.Server {
	// Warnings only: successes are not written.
	lines := slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn}))
	logger := logging.LoggerFunc(func(ctx context.Context, l logging.Level, msg string, fields ...any) {
		lines.Log(ctx, slog.Level(l), msg, fields...)
	})
	recovered := func(p any) error { return status.Errorf(codes.Internal, "%v", p) }
	s := grpc.NewServer(
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
		grpc.ChainUnaryInterceptor(
			metrics.UnaryServerInterceptor(),
			logging.UnaryServerInterceptor(logger, logging.WithLogOnEvents(logging.FinishCall)),
			recovery.UnaryServerInterceptor(recovery.WithRecoveryHandler(recovered)),
		),
		grpc.MaxConcurrentStreams(100),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 30 * time.Second, PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 2 * time.Minute, Timeout: 20 * time.Second, MaxConnectionIdle: 15 * time.Minute,
		}),
	)
	pb.RegisterUserServiceServer(s, peer.NewUsers())
	checks := health.NewServer()
	checks.SetServingStatus("UserService", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, checks)
	reflection.Register(s)
	metrics.InitializeMetrics(s)
	return s
}

func trace() {
	// The closed port's complaints.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	exporter, err := otlptracegrpc.New(context.Background(),
		otlptracegrpc.WithEndpoint("127.0.0.1:9"), otlptracegrpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	otel.SetTracerProvider(sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.01))),
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("user"))),
	))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, propagation.Baggage{}))
}

func serveMetrics(metrics *grpcprom.ServerMetrics, port string) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	log.Fatal(http.ListenAndServe(net.JoinHostPort("127.0.0.1", port), mux))
}
