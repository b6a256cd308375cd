// grpc-go with its defaults: go-plain PORT [CERT KEY].
package main

import (
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"peer"
	"peer/pb"
)

func main() {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		log.Fatal("usage: go-plain PORT [CERT KEY]")
	}
	var options []grpc.ServerOption
	if len(os.Args) == 4 {
		identity, err := credentials.NewServerTLSFromFile(os.Args[2], os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(identity))
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer(options...)
	pb.RegisterUserServiceServer(s, peer.NewUsers())
	log.Fatal(s.Serve(l))
}
