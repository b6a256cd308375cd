package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"user-service.invalid/client/gen/userv1"
)

// serviceConfig is the one that we recommend; tests run where the repository is.
func serviceConfig() string {
	text, err := os.ReadFile("deploy/client/service-config.json")
	works(err, "service config")
	return string(text)
}

// channel uses what a well-configured Go client uses: the service config that we
// recommend, keepalive, and many calls at once.
func channel(ctx context.Context, addr string) {
	conn := dial("dns:///"+addr,
		grpc.WithDefaultServiceConfig(serviceConfig()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}),
	)
	defer conn.Close()
	users := userv1.NewUserServiceClient(conn)

	var group sync.WaitGroup
	var failed atomic.Int64
	for worker := range 50 {
		group.Go(func() {
			for call := range 20 {
				id := fmt.Sprintf("channel-%d-%d", worker, call)
				_, err := users.CreateUser(ctx, &userv1.CreateUserRequest{
					UserId: id, User: &userv1.User{Name: id, Email: id + "@example.com"},
				})
				got, getErr := users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: id}})
				if err != nil || getErr != nil || got.GetUser().GetId() != id {
					failed.Add(1)
					fmt.Println(id, err, getErr)
				}
			}
		})
	}
	group.Wait()
	check(failed.Load() == 0, "%d of 1000 users were not created and read", failed.Load())
	check(conn.GetState() == connectivity.Ready, "the channel is %v", conn.GetState())
	covered(conn)
	healthNames(ctx, conn)
}

// covered checks that every method is repeated, and that what takes long by nature
// is not cut off.
func covered(conn *grpc.ClientConn) {
	of := func(method string) grpc.MethodConfig {
		config := conn.GetMethodConfig(method)
		check(config.RetryPolicy != nil && config.WaitForReady != nil && *config.WaitForReady, "%s is not repeated", method)
		return config
	}
	service := userv1.UserService_ServiceDesc
	for _, stream := range service.Streams {
		check(of("/"+service.ServiceName+"/"+stream.StreamName).Timeout == nil, "%s ends after a while", stream.StreamName)
	}
	unary := []string{"/UserService/GetUser", "/UserService/CreateUser"}
	for _, method := range service.Methods {
		unary = append(unary, "/"+service.ServiceName+"/"+method.MethodName)
	}
	for _, method := range unary {
		check(of(method).Timeout != nil, "%s may take forever", method)
	}
}

func healthNames(ctx context.Context, conn *grpc.ClientConn) {
	health := grpc_health_v1.NewHealthClient(conn)
	all, err := health.List(ctx, &grpc_health_v1.HealthListRequest{})
	works(err, "health list")
	for _, name := range []string{"", "liveness", "user.v1.UserService", "UserService"} {
		got, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
		works(err, "health of "+name)
		check(got.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, "%q is %v", name, got.GetStatus())
		check(all.GetStatuses()[name].GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, "%q is not listed as serving: %v", name, all)
	}
	_, err = health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	check(status.Code(err) == codes.NotFound, "health of an unknown name: %v", err)

	watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	works(err, "health watch")
	first, err := watch.Recv()
	works(err, "health watch of an unknown name")
	check(first.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, "watching an unknown name: %v", first)
}
