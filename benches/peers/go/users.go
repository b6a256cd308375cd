// Package peer holds the service that the Go servers serve: the article's contract on a
// map.
package peer

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"peer/pb"
)

// Users are all users, by id.
type Users struct {
	pb.UnimplementedUserServiceServer
	mu   sync.RWMutex
	byID map[string]*pb.User
}

// NewUsers returns no users.
func NewUsers() *Users { return &Users{byID: map[string]*pb.User{}} }

// Find returns the user of an id, if there is one.
func (s *Users) Find(id string) (*pb.User, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	user, ok := s.byID[id]
	return user, ok
}

// GetUser returns a user by id.
func (s *Users) GetUser(_ context.Context, r *pb.UserRequest) (*pb.UserResponse, error) {
	user, ok := s.Find(r.GetUser().GetId())
	if !ok {
		return nil, status.Error(codes.NotFound, "User not found")
	}
	return &pb.UserResponse{User: user}, nil
}

// CreateUser stores a user under its id.
func (s *Users) CreateUser(_ context.Context, r *pb.CreateUserRequest) (*pb.CreateUserResponse, error) {
	user := r.GetUser()
	if user == nil {
		user = &pb.User{}
	}
	s.mu.Lock()
	s.byID[user.GetId()] = user
	s.mu.Unlock()
	return &pb.CreateUserResponse{User: user}, nil
}
