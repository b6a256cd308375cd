// Command go-client checks a server with grpc-go: every call of user.v1, the
// channel features that Go clients rely on, reflection in its older version with
// the library that grpcurl is made of, a load that must not see a server go, and
// calls that are given up.
//
// With TLS_CA in the environment, all of it by TLS.
//
// usage: go-client calls|channel|v1alpha|load|cancels|tls ADDR
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// check ends the program where the server broke its word.
func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "FAILED: "+format+"\n", args...)
		os.Exit(1)
	}
}

// transportCredentials is TLS where TLS_CA names the authorities of the server; TLS_CERT and
// TLS_KEY name what the server is shown.
func transportCredentials() credentials.TransportCredentials {
	ca := os.Getenv("TLS_CA")
	if ca == "" {
		return insecure.NewCredentials()
	}
	pem, err := os.ReadFile(ca)
	works(err, "TLS_CA")
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	check(config.RootCAs.AppendCertsFromPEM(pem), "no certificate in %s", ca)
	if cert := os.Getenv("TLS_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("TLS_KEY"))
		works(err, "TLS_CERT")
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config)
}

func dial(addr string, options ...grpc.DialOption) *grpc.ClientConn {
	options = append(options, grpc.WithTransportCredentials(transportCredentials()))
	conn, err := grpc.NewClient(addr, options...)
	check(err == nil, "no client for %s: %v", addr, err)
	return conn
}

func main() {
	parts := map[string]func(context.Context, string){"calls": calls, "channel": channel, "v1alpha": v1alpha, "load": load, "cancels": cancels, "tls": group}
	if len(os.Args) != 3 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-client calls|channel|v1alpha|load|cancels|tls ADDR")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	parts[os.Args[1]](ctx, os.Args[2])
	fmt.Println("ok")
}
