// Package peer holds the service that both grpc-go servers serve: the article's
// contract on a map.
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

// GetUser returns a user by id.
func (s *Users) GetUser(_ context.Context, r *pb.UserRequest) (*pb.UserResponse, error) {
	s.mu.RLock()
	user, ok := s.byID[r.GetUser().GetId()]
	s.mu.RUnlock()
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
