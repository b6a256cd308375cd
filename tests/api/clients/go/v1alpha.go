package main

import (
	"context"
	"slices"

	"github.com/jhump/protoreflect/grpcreflect"
	alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// v1alpha does what `grpcurl list` and `grpcurl describe` do. They only fall
// back to this version where v1 is missing, so it is asked for here by name.
func v1alpha(ctx context.Context, addr string) {
	conn := dial(addr)
	defer conn.Close()
	client := grpcreflect.NewClientV1Alpha(ctx, alpha.NewServerReflectionClient(conn))
	defer client.Reset()

	services, err := client.ListServices()
	works(err, "list services")
	for _, name := range []string{"UserService", "grpc.health.v1.Health", "user.v1.UserService"} {
		check(slices.Contains(services, name), "%s is not among %v", name, services)
		service, err := client.ResolveService(name)
		works(err, "resolve "+name)
		check(len(service.GetMethods()) > 0, "%s has no methods", name)
		comment := service.GetSourceInfo().GetLeadingComments()
		check(comment != "", "%s has no comment", name)
	}
	for _, name := range []string{"google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"} {
		_, err := client.ResolveMessage(name)
		works(err, "resolve "+name)
	}
}
