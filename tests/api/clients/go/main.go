// Command go-client checks a server with grpc-go: every call of user.v1, the
// channel features that Go clients rely on, reflection in its older version with
// the library that grpcurl is made of, and a load that must not see a server go.
//
// usage: go-client calls|channel|v1alpha|load ADDR
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// check ends the program where the server broke its word.
func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "FAILED: "+format+"\n", args...)
		os.Exit(1)
	}
}

func dial(addr string, options ...grpc.DialOption) *grpc.ClientConn {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(addr, options...)
	check(err == nil, "no client for %s: %v", addr, err)
	return conn
}

func main() {
	parts := map[string]func(context.Context, string){"calls": calls, "channel": channel, "v1alpha": v1alpha, "load": load}
	if len(os.Args) != 3 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-client calls|channel|v1alpha|load ADDR")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	parts[os.Args[1]](ctx, os.Args[2])
	fmt.Println("ok")
}
