package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"user-service.invalid/client/gen/userv1"
)

const (
	// How long a stream that ended is left alone before it is called again.
	again = 50 * time.Millisecond
	// How long what was created may take to be told.
	patience = 5 * time.Minute
)

// watched compares the users that were created with those that a watch told.
type watched struct {
	begun    atomic.Bool
	mutex    sync.Mutex
	expected map[string]bool
	told     map[string]bool
}

func newWatched() *watched {
	return &watched{expected: map[string]bool{}, told: map[string]bool{}}
}

func (w *watched) expect(id string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.expected[id] = true
}

// tell notes a user, and says whether it was told before.
func (w *watched) tell(id string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	before := w.told[id]
	w.told[id] = true
	return before
}

func (w *watched) missing() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var missing []string
	for id := range w.expected {
		if !w.told[id] {
			missing = append(missing, id)
		}
	}
	slices.Sort(missing)
	return missing
}

// watch follows all changes over any number of streams, until the calls have ended and
// all that they created was told.
func (w *watched) watch(conn *grpc.ClientConn, counted *count, called <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-called
		for end := time.Now().Add(patience); len(w.missing()) > 0 && time.Now().Before(end); {
			time.Sleep(again)
		}
		cancel()
	}()
	users := userv1.NewUserServiceClient(conn)
	for token := ""; ; time.Sleep(again) {
		stream, err := users.WatchUsers(ctx, &userv1.WatchUsersRequest{ResumeToken: token})
		for err == nil {
			var message *userv1.WatchUsersResponse
			if message, err = stream.Recv(); err == nil {
				token = message.GetResumeToken()
				w.begun.Store(true)
				if user := message.GetCreated(); user != nil && w.tell(user.GetId()) {
					counted.failedWith("a user was told twice")
				}
			}
		}
		if ctx.Err() != nil {
			break
		}
		counted.ended()
		counted.failed("WatchUsers", err)
	}
	if missing := w.missing(); len(missing) > 0 {
		counted.failedWith(fmt.Sprintf("%d users were not told, such as %s", len(missing), missing[0]))
	}
}

// imported imports the same users over and over, which the other programs import too. A new
// stream sends what the last one has not answered. All users are imported at least once.
func imported(conn *grpc.ClientConn, counted *count, total int, stop <-chan struct{}) {
	users := userv1.NewUserServiceClient(conn)
	whole := false
	for next := 0; !stopped(stop, pause) || !whole; {
		answered, err := importFrom(users, next, total, counted)
		counted.ended()
		next += answered
		if err != nil {
			counted.failed("ImportUsers", err)
		}
		if err == nil && next < total {
			counted.failedWith(fmt.Sprintf("an import ended with OK after %d users of %d", next, total))
		}
		if next >= total {
			next, whole = 0, true
		}
	}
}

func importFrom(users userv1.UserServiceClient, next, total int, counted *count) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), importTimeout)
	defer cancel()
	stream, err := users.ImportUsers(ctx)
	if err != nil {
		return 0, err
	}
	go func() {
		for i := next; i < total; i++ {
			id := fmt.Sprintf("import-%d", i)
			user := &userv1.User{Name: strings.Repeat("x", 200), Email: id + "@example.com"}
			if stream.Send(&userv1.ImportUsersRequest{UserId: id, User: user}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for answered := 0; ; answered++ {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answered, nil
		}
		if err != nil {
			return answered, err
		}
		if answer.GetError() != nil || answer.GetIndex() != int64(answered) {
			counted.failedWith(fmt.Sprintf("an imported user was answered %.160s", answer.GetError().GetMessage()))
		}
	}
}
