// grpc-go with its defaults: go-plain PORT.
package main

import (
	"log"
	"net"
	"os"

	"google.golang.org/grpc"

	"peer"
	"peer/pb"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go-plain PORT")
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Args[1]))
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterUserServiceServer(s, peer.NewUsers())
	log.Fatal(s.Serve(l))
}
