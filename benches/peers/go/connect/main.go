// connect-go with its defaults, which serves gRPC as well: go-connect PORT.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"

	"peer"
	"peer/pb"
)

// handle serves one unary method under the article's path.
func handle[Req, Res any](mux *http.ServeMux, name string, answer func(context.Context, *Req) (*Res, error)) {
	path := "/UserService/" + name
	mux.Handle(path, connect.NewUnaryHandlerSimple(path, answer))
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go-connect PORT")
	}
	users, mux := peer.NewUsers(), http.NewServeMux()
	handle(mux, "GetUser", func(_ context.Context, r *pb.UserRequest) (*pb.UserResponse, error) {
		user, ok := users.Find(r.GetUser().GetId())
		if !ok {
			return nil, connect.NewError(connect.CodeNotFound, nil)
		}
		return &pb.UserResponse{User: user}, nil
	})
	handle(mux, "CreateUser", users.CreateUser)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: net.JoinHostPort("127.0.0.1", os.Args[1]), Handler: mux, Protocols: &protocols}
	log.Fatal(server.ListenAndServe())
}
