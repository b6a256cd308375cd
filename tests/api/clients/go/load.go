package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"user-service.invalid/client/gen/userv1"
)

// load calls the servers of a comma-separated list in turn, over and over, until
// its standard input ends. It says "ready" once each of them has answered. No
// retries are configured: what gRPC itself does on a GOAWAY must be enough.
func load(ctx context.Context, list string) {
	addrs := strings.Split(list, ",")
	var state resolver.State
	for _, addr := range addrs {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
	}
	servers := manual.NewBuilderWithScheme("servers")
	servers.InitialState(state)
	conn := dial("servers:///users", grpc.WithResolvers(servers), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	defer conn.Close()
	users := userv1.NewUserServiceClient(conn)

	ctx, stop := context.WithCancel(ctx)
	var stopping atomic.Bool
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		stopping.Store(true)
	}()

	var answered sync.Map
	var calls atomic.Int64
	var ready sync.Once
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for !stopping.Load() {
				var from peer.Peer
				_, err := users.ListUsers(ctx, &userv1.ListUsersRequest{}, grpc.Peer(&from))
				check(err == nil, "call %d: %v", calls.Load(), err)
				calls.Add(1)
				answered.Store(from.Addr.String(), true)
				seen := 0
				answered.Range(func(any, any) bool { seen++; return true })
				if seen == len(addrs) {
					ready.Do(func() { fmt.Println("ready") })
				}
			}
		})
	}
	group.Wait()
	stop()
	fmt.Println(calls.Load(), "calls")
}
