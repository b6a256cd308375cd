package main

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"user-service.invalid/client/gen/userv1"
)

// cancels gives 10,000 calls up in a burst, and then one in ten of CALLS (10,000), all
// over one connection. The caller sees by the server's metrics that it was one.
func cancels(ctx context.Context, addr string) {
	total := 10_000
	if text := os.Getenv("CALLS"); text != "" {
		var err error
		total, err = strconv.Atoi(text)
		works(err, "CALLS")
	}
	conn := dial(addr, grpc.WithKeepaliveParams(keepalive.ClientParameters{
		// The kernel ends a connection whose bytes a busy server leaves unread for longer than the timeout.
		Time: 10 * time.Second, Timeout: time.Minute, PermitWithoutStream: true,
	}))
	defer conn.Close()
	users := userv1.NewUserServiceClient(conn)
	request := &userv1.ListUsersRequest{}

	// Each gives a call up before it may have an answer, and then makes the next.
	var answered, cancelled atomic.Int64
	each := func(count int, givenUp func(call int) bool, try func(context.Context)) {
		var group sync.WaitGroup
		for worker := range 100 {
			group.Go(func() {
				for call := worker; call < count; call += 100 {
					callCtx, cancel := context.WithCancel(ctx)
					if givenUp(call) {
						time.AfterFunc(time.Duration(rand.IntN(300))*time.Microsecond, cancel)
					}
					try(callCtx)
					cancel()
				}
			})
		}
		group.Wait()
	}
	each(10_000, func(int) bool { return true }, func(ctx context.Context) {
		if _, err := users.ListUsers(ctx, request); err != nil {
			cancelled.Add(1)
		}
	})
	check(cancelled.Load() > 1_000, "only %d calls were given up", cancelled.Load())
	each(total, func(call int) bool { return call%10 == 0 }, func(ctx context.Context) {
		_, err := users.ListUsers(ctx, request)
		check(err == nil || ctx.Err() != nil, "a call that was not given up: %v", err)
		if err == nil {
			answered.Add(1)
		}
	})
	check(answered.Load() >= int64(total)*9/10, "%d of %d calls were answered", answered.Load(), total)
}
