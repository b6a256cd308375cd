package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"user-service.invalid/client/gen/article"
	"user-service.invalid/client/gen/userv1"
)

// call makes one round of calls after the other; no round goes on after a call that
// failed, because what follows would fail with it.
func call(conn *grpc.ClientConn, counted *count, watched *watched, stop <-chan struct{}) {
	callers := caller{
		counted: counted,
		users:   userv1.NewUserServiceClient(conn),
		article: article.NewUserServiceClient(conn),
		health:  grpc_health_v1.NewHealthClient(conn),
	}
	for round := 0; !stopped(stop, pause); round++ {
		id := fmt.Sprintf("go-%d-%s-%s-%d", os.Getpid(), counted.Target, counted.Kind, round)
		callers.round(id, watched)
	}
}

type caller struct {
	counted *count
	users   userv1.UserServiceClient
	article article.UserServiceClient
	health  grpc_health_v1.HealthClient
}

func (c *caller) round(id string, watched *watched) {
	// A watch that has not begun tells nothing of what is created before.
	begun := watched != nil && watched.begun.Load()
	user := &userv1.User{Name: id, Email: id + "@example.com", Age: 36}
	_ = c.must("CreateUser", func(ctx context.Context) error {
		_, err := c.users.CreateUser(ctx, &userv1.CreateUserRequest{UserId: id, RequestId: uuid(), User: user})
		if err == nil && begun {
			watched.expect(id)
		}
		return err
	}) && c.must("GetUser", func(ctx context.Context) error {
		_, err := c.users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: id}})
		return err
	}) && c.must("UpdateUser", func(ctx context.Context) error {
		_, err := c.users.UpdateUser(ctx, &userv1.UpdateUserRequest{RequestId: uuid(), User: &userv1.User{Id: id, Age: 37}})
		return err
	}) && c.must("BatchGetUsers", func(ctx context.Context) error {
		_, err := c.users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{Ids: []string{id, id}})
		return err
	}) && c.must("ListUsers", func(ctx context.Context) error {
		_, err := c.users.ListUsers(ctx, &userv1.ListUsersRequest{PageSize: 1000})
		return err
	}) && c.must("article CreateUser", func(ctx context.Context) error {
		_, err := c.article.CreateUser(ctx, &article.CreateUserRequest{User: &article.User{Id: id, Name: id, Email: id + "@example.com"}})
		return err
	}) && c.must("article GetUser", func(ctx context.Context) error {
		_, err := c.article.GetUser(ctx, &article.UserRequest{User: &article.User{Id: id}})
		return err
	}) && c.must("health Check", func(ctx context.Context) error {
		_, err := c.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "liveness"})
		return err
	}) && c.refused("largest error", codes.InvalidArgument, "INVALID_FIELDS", func(ctx context.Context) error {
		ids := make([]string, 1000)
		for i := range ids {
			ids[i] = "BAD"
		}
		_, err := c.users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{Ids: ids})
		return err
	}) && c.refused("message too large", codes.ResourceExhausted, "MESSAGE_TOO_LARGE", func(ctx context.Context) error {
		_, err := c.users.CreateUser(ctx, &userv1.CreateUserRequest{User: &userv1.User{Name: strings.Repeat("x", 300_000)}})
		return err
	}) && c.must("DeleteUser", func(ctx context.Context) error {
		_, err := c.users.DeleteUser(ctx, &userv1.DeleteUserRequest{Id: id, RequestId: uuid()})
		return err
	})
}

func (c *caller) must(method string, call func(context.Context) error) bool {
	return c.refused(method, codes.OK, "", call)
}

// refused counts a call that has to end with a code, and with its reason in the details.
func (c *caller) refused(method string, code codes.Code, reason string, call func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := call(ctx)
	c.counted.ended()
	if status.Code(err) == code && reasonOf(err) == reason {
		return true
	}
	c.counted.failed(method, err)
	return false
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func uuid() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])
}
