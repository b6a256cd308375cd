package main

import (
	"context"
	"crypto/tls"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// group checks what an ordinary Go client negotiates.
func group(ctx context.Context, addr string) {
	conn := dial(addr)
	defer conn.Close()
	var server peer.Peer
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&server))
	works(err, "health")
	info, ok := server.AuthInfo.(credentials.TLSInfo)
	check(ok, "the connection has no TLS: %v", server.AuthInfo)
	check(info.State.Version == tls.VersionTLS13, "the version is %s", tls.VersionName(info.State.Version))
	check(info.State.CurveID == tls.X25519MLKEM768, "the group is %v", info.State.CurveID)
	check(info.State.NegotiatedProtocol == "h2", "the protocol is %q", info.State.NegotiatedProtocol)
}
