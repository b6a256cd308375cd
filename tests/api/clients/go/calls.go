package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"user-service.invalid/client/gen/userv1"
)

// detail returns the one detail of its type.
func detail[D any](err error, what string) D {
	var found []D
	for _, detail := range status.Convert(err).Details() {
		if detail, ok := detail.(D); ok {
			found = append(found, detail)
		}
	}
	check(len(found) == 1, "%s: %d details of type %T, not 1, in %v", what, len(found), *new(D), err)
	return found[0]
}

// fails checks a call's error: its code, its reason, and that it tells nobody's
// address.
func fails(err error, code codes.Code, reason, what string) {
	check(status.Code(err) == code, "%s: %v, not %v", what, err, code)
	check(!strings.Contains(status.Convert(err).Message(), "@"), "%s: an address in the message %v", what, err)
	info := detail[*errdetails.ErrorInfo](err, what)
	check(info.GetDomain() == "user-service", "%s: domain %q", what, info.GetDomain())
	check(info.GetReason() != "" && (reason == "" || info.GetReason() == reason), "%s: reason %q, not %q", what, info.GetReason(), reason)
}

// works checks that a call went well.
func works(err error, what string) {
	check(err == nil, "%s: %v", what, err)
}

// calls walks through every rpc of user.v1, the good ends and the bad ones.
func calls(ctx context.Context, addr string) {
	conn := dial(addr)
	defer conn.Close()
	users := userv1.NewUserServiceClient(conn)

	ada := create(ctx, users)
	read(ctx, users, ada)
	refuse(ctx, users)
	repeat(ctx, users)
	ada = update(ctx, users, ada)
	list(ctx, users)
	batch(ctx, users, ada)
	remove(ctx, users, ada)
	transport(ctx, conn, users)
}

func create(ctx context.Context, users userv1.UserServiceClient) *userv1.User {
	created, err := users.CreateUser(ctx, &userv1.CreateUserRequest{
		User: &userv1.User{Name: " Ada Lovelace ", Email: "Ada.Go@Example.com", Age: 36},
	})
	works(err, "create")
	ada := created.GetUser()
	check(ada.GetName() == "Ada Lovelace" && ada.GetEmail() == "ada.go@example.com" && ada.GetAge() == 36, "create: %v", ada)
	check(len(ada.GetId()) == 36 && ada.GetId()[14] == '7', "create: the id %q is no UUIDv7", ada.GetId())
	check(strings.HasPrefix(ada.GetEtag(), `"`) && strings.HasSuffix(ada.GetEtag(), `"`), "create: the etag %s is not quoted", ada.GetEtag())
	check(time.Since(ada.GetCreateTime().AsTime()).Abs() < time.Hour, "create: the time is %v", ada.GetCreateTime())
	check(ada.GetUpdateTime().AsTime().Equal(ada.GetCreateTime().AsTime()), "create: updated at %v", ada.GetUpdateTime())

	_, err = users.CreateUser(ctx, &userv1.CreateUserRequest{
		User: &userv1.User{Name: "Another", Email: "ADA.GO@example.com"},
	})
	fails(err, codes.AlreadyExists, "", "create, e-mail taken")
	detail[*errdetails.ResourceInfo](err, "create, e-mail taken")
	return ada
}

func read(ctx context.Context, users userv1.UserServiceClient, ada *userv1.User) {
	got, err := users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: ada.GetId()}})
	works(err, "get by id")
	check(got.GetUser().String() == ada.String(), "get by id: %v", got)
	got, err = users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Email{Email: " ADA.GO@example.COM"}})
	works(err, "get by e-mail")
	check(got.GetUser().GetId() == ada.GetId(), "get by e-mail: %v", got)

	_, err = users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: "nobody"}})
	fails(err, codes.NotFound, "", "get a missing user")
	detail[*errdetails.ResourceInfo](err, "get a missing user")
	_, err = users.GetUser(ctx, &userv1.GetUserRequest{})
	fails(err, codes.InvalidArgument, "", "get without a key")
}

func refuse(ctx context.Context, users userv1.UserServiceClient) {
	_, err := users.CreateUser(ctx, &userv1.CreateUserRequest{User: &userv1.User{Name: "\x07", Email: "none", Age: 151}})
	fails(err, codes.InvalidArgument, "", "create with bad fields")
	var fields []string
	for _, violation := range detail[*errdetails.BadRequest](err, "create with bad fields").GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	slices.Sort(fields)
	check(slices.Equal(fields, []string{"user.age", "user.email", "user.name"}), "create with bad fields: %v are refused", fields)
}

func repeat(ctx context.Context, users userv1.UserServiceClient) {
	request := &userv1.CreateUserRequest{
		User:      &userv1.User{Name: "Grace", Email: "grace.go@example.com"},
		RequestId: "01890a5d-ac96-774b-bcce-b302099a8001",
	}
	request.ValidateOnly = true
	_, err := users.CreateUser(ctx, request)
	works(err, "validate_only")
	_, err = users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Email{Email: "grace.go@example.com"}})
	fails(err, codes.NotFound, "", "get what was only validated")

	request.ValidateOnly = false
	first, err := users.CreateUser(ctx, request)
	works(err, "create with a request_id")
	second, err := users.CreateUser(ctx, request)
	works(err, "the same again")
	check(first.String() == second.String(), "a repeat answers %v, not %v", second, first)
	request.User.Age = 1
	_, err = users.CreateUser(ctx, request)
	fails(err, codes.InvalidArgument, "REQUEST_ID_REUSED", "the same request_id for something else")
}

func update(ctx context.Context, users userv1.UserServiceClient, ada *userv1.User) *userv1.User {
	updated, err := users.UpdateUser(ctx, &userv1.UpdateUserRequest{
		User:       &userv1.User{Id: ada.GetId(), Age: 37, Name: "not in the mask", Etag: ada.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"age"}},
	})
	works(err, "update")
	now := updated.GetUser()
	check(now.GetAge() == 37 && now.GetName() == "Ada Lovelace", "update: %v", now)
	check(now.GetEtag() != ada.GetEtag(), "update: the etag is still %s", now.GetEtag())

	_, err = users.UpdateUser(ctx, &userv1.UpdateUserRequest{User: &userv1.User{Id: ada.GetId(), Age: 38, Etag: ada.GetEtag()}})
	fails(err, codes.Aborted, "", "update with an old etag")
	_, err = users.UpdateUser(ctx, &userv1.UpdateUserRequest{
		User:       &userv1.User{Id: ada.GetId()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"shoe_size"}},
	})
	fails(err, codes.InvalidArgument, "", "update of an unknown path")
	return now
}

func list(ctx context.Context, users userv1.UserServiceClient) {
	var want, seen []string
	for _, id := range []string{"go-1", "go-2", "go-3", "go-4", "go-5"} {
		_, err := users.CreateUser(ctx, &userv1.CreateUserRequest{
			UserId: id, User: &userv1.User{Name: id, Email: id + "@example.com"},
		})
		works(err, "create "+id)
		want = append(want, id)
	}
	for token := ""; ; {
		page, err := users.ListUsers(ctx, &userv1.ListUsersRequest{PageSize: 2, PageToken: token})
		works(err, "list")
		check(len(page.GetUsers()) <= 2, "list: %d users on a page of 2", len(page.GetUsers()))
		for _, user := range page.GetUsers() {
			if strings.HasPrefix(user.GetId(), "go-") {
				seen = append(seen, user.GetId())
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	check(slices.Equal(seen, want), "list: %v, not %v", seen, want)
	_, err := users.ListUsers(ctx, &userv1.ListUsersRequest{PageSize: -1})
	fails(err, codes.InvalidArgument, "", "list with a negative page size")
	_, err = users.ListUsers(ctx, &userv1.ListUsersRequest{PageToken: "made up"})
	fails(err, codes.InvalidArgument, "", "list with a token of one's own")
}

func batch(ctx context.Context, users userv1.UserServiceClient, ada *userv1.User) {
	ids := []string{"go-2", ada.GetId(), "go-2"}
	got, err := users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{Ids: ids})
	works(err, "batch get")
	var found []string
	for _, user := range got.GetUsers() {
		found = append(found, user.GetId())
	}
	check(slices.Equal(found, ids), "batch get: %v, not %v", found, ids)

	_, err = users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{Ids: []string{"go-1", "nobody"}})
	fails(err, codes.NotFound, "", "batch get with a missing id")
	got, err = users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{Ids: []string{"nobody", "go-1"}, AllowMissing: true})
	works(err, "batch get, missing allowed")
	check(len(got.GetUsers()) == 1 && slices.Equal(got.GetMissingIds(), []string{"nobody"}), "batch get, missing allowed: %v", got)
}

func remove(ctx context.Context, users userv1.UserServiceClient, ada *userv1.User) {
	_, err := users.DeleteUser(ctx, &userv1.DeleteUserRequest{Id: ada.GetId(), Etag: `"old"`})
	check(err != nil, "delete with a wrong etag went through")
	_, err = users.DeleteUser(ctx, &userv1.DeleteUserRequest{Id: ada.GetId(), Etag: ada.GetEtag()})
	works(err, "delete")
	_, err = users.DeleteUser(ctx, &userv1.DeleteUserRequest{Id: ada.GetId()})
	fails(err, codes.NotFound, "", "delete again")
	_, err = users.DeleteUser(ctx, &userv1.DeleteUserRequest{Id: ada.GetId(), AllowMissing: true})
	works(err, "delete again, missing allowed")
}

// transport checks what is not about users: deadlines, compression, and what is
// not served.
func transport(ctx context.Context, conn *grpc.ClientConn, users userv1.UserServiceClient) {
	short, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	_, err := users.ListUsers(short, &userv1.ListUsersRequest{})
	check(status.Code(err) == codes.DeadlineExceeded, "a deadline that has passed: %v", err)

	page, err := users.ListUsers(ctx, &userv1.ListUsersRequest{PageSize: 3}, grpc.UseCompressor(gzip.Name))
	works(err, "list, compressed")
	check(len(page.GetUsers()) == 3, "list, compressed: %v", page)

	err = conn.Invoke(ctx, "/user.v1.UserService/NoSuchMethod", &userv1.GetUserRequest{}, &userv1.GetUserResponse{})
	fails(err, codes.Unimplemented, "", "a method that does not exist")
	_, err = users.CreateUser(ctx, &userv1.CreateUserRequest{User: &userv1.User{Name: strings.Repeat("x", 1<<20)}})
	fails(err, codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "a message over the cap")
}
