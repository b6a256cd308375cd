package main

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"user-service.invalid/client/gen/userv1"
)

// byConnect calls with connect-go: by each protocol that it speaks, in both formats of
// Connect, over HTTP/1.1 and HTTP/2, compressed.
func byConnect(ctx context.Context, addr string) {
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	for _, way := range []struct {
		name      string
		protocols *http.Protocols
		options   []connect.ClientOption
	}{
		{"connect, HTTP/1.1", &one, nil},
		{"connect, HTTP/2", &two, nil},
		{"connect in JSON, HTTP/1.1", &one, []connect.ClientOption{connect.WithProtoJSON()}},
		{"connect in JSON, HTTP/2", &two, []connect.ClientOption{connect.WithProtoJSON()}},
		{"connect, compressed", &one, []connect.ClientOption{connect.WithSendGzip()}},
		{"connect, GET", &one, []connect.ClientOption{connect.WithHTTPGet()}},
		{"gRPC", &two, []connect.ClientOption{connect.WithGRPC()}},
		{"gRPC-Web, HTTP/1.1", &one, []connect.ClientOption{connect.WithGRPCWeb()}},
		{"gRPC-Web, HTTP/2", &two, []connect.ClientOption{connect.WithGRPCWeb(), connect.WithSendGzip()}},
	} {
		client := &http.Client{Transport: &http.Transport{Protocols: way.protocols}}
		walk(ctx, client, "http://"+addr+"/user.v1.UserService/", way.name, way.options)
		client.CloseIdleConnections()
	}
}

// walk creates a user, watches, reads the user, is refused, and deletes the user.
func walk(ctx context.Context, http *http.Client, base, way string, options []connect.ClientOption) {
	get := connect.NewClient[userv1.GetUserRequest, userv1.GetUserResponse](http, base+"GetUser",
		append(options, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...)
	create := connect.NewClient[userv1.CreateUserRequest, userv1.CreateUserResponse](http, base+"CreateUser", options...)
	watch := connect.NewClient[userv1.WatchUsersRequest, userv1.WatchUsersResponse](http, base+"WatchUsers", options...)
	remove := connect.NewClient[userv1.DeleteUserRequest, userv1.DeleteUserResponse](http, base+"DeleteUser", options...)

	user := &userv1.User{Name: "Ada", Email: "ada@example.com", Age: 36}
	created, err := create.CallUnary(ctx, connect.NewRequest(&userv1.CreateUserRequest{User: user}))
	works(err, way)
	id := created.Msg.GetUser().GetId()

	stream, err := watch.CallServerStream(ctx, connect.NewRequest(&userv1.WatchUsersRequest{InitialState: true}))
	works(err, way)
	check(stream.Receive(), "%s: the watch ends: %v", way, stream.Err())
	check(stream.Msg().GetExisting().GetId() == id, "%s: the watch begins with %v", way, stream.Msg())
	check(stream.Msg().GetResumeToken() != "", "%s: no token", way)
	works(stream.Close(), way)

	key := &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: id}}
	got, err := get.CallUnary(ctx, connect.NewRequest(key))
	works(err, way)
	check(got.Msg.GetUser().GetEmail() == user.Email, "%s: got %v", way, got.Msg)

	_, err = create.CallUnary(ctx, connect.NewRequest(&userv1.CreateUserRequest{User: &userv1.User{Email: "nobody"}}))
	check(connect.CodeOf(err) == connect.CodeInvalidArgument, "%s: %v", way, err)
	violations := connectDetail[*errdetails.BadRequest](err, way).GetFieldViolations()
	check(len(violations) == 2 && violations[1].GetField() == "user.email", "%s: %v", way, violations)
	reason := connectDetail[*errdetails.ErrorInfo](err, way).GetReason()
	check(reason == "INVALID_FIELDS", "%s: reason %q", way, reason)

	_, err = remove.CallUnary(ctx, connect.NewRequest(&userv1.DeleteUserRequest{Id: id}))
	works(err, way)
	_, err = get.CallUnary(ctx, connect.NewRequest(key))
	check(connect.CodeOf(err) == connect.CodeNotFound, "%s: %v", way, err)
}

// connectDetail returns the one detail of its type.
func connectDetail[D any](err error, what string) D {
	var failed *connect.Error
	check(errors.As(err, &failed), "%s: no error of Connect: %v", what, err)
	var found []D
	for _, detail := range failed.Details() {
		value, err := detail.Value()
		works(err, what)
		if value, ok := value.(D); ok {
			found = append(found, value)
		}
	}
	check(len(found) == 1, "%s: %d details of type %T in %v", what, len(found), *new(D), err)
	return found[0]
}
