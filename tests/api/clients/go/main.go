// Command go-client checks a server with grpc-go: every call of user.v1, the
// channel features that Go clients rely on, reflection in its older version with
// the library that grpcurl is made of, a load that must not see a server go, and
// calls that are given up. With connect-go it makes calls by each of three protocols.
//
// With TLS_CA in the environment, all of it by TLS (package shown).
//
// usage: go-client calls|channel|v1alpha|load|cancels|tls|connect ADDR
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"user-service.invalid/client/shown"
)

// check ends the program where the server broke its word.
func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "FAILED: "+format+"\n", args...)
		os.Exit(1)
	}
}

func dial(addr string, options ...grpc.DialOption) *grpc.ClientConn {
	identity, err := shown.Options()
	works(err, "what is shown")
	options = append(options, identity...)
	conn, err := grpc.NewClient(addr, options...)
	check(err == nil, "no client for %s: %v", addr, err)
	return conn
}

func main() {
	parts := map[string]func(context.Context, string){"calls": calls, "channel": channel, "v1alpha": v1alpha, "load": load, "cancels": cancels, "tls": group, "connect": byConnect}
	if len(os.Args) != 3 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-client calls|channel|v1alpha|load|cancels|tls|connect ADDR")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	parts[os.Args[1]](ctx, os.Args[2])
	fmt.Println("ok")
}
