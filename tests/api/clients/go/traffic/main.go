// Command go-traffic calls a service by several targets at once, as ordinary
// clients written with grpc-go do, until its standard input ends. It counts what
// fails, and reads back what it was told is created.
//
// Each target is called with the service config of a file, and without any retry or
// waiting; each of these by callers that stay and by callers that come and go. What
// it saw is written as JSON. With TLS_CA and TOKEN_FILE in the environment it calls by TLS
// and with a token (package shown).
//
// usage: go-traffic -config FILE [-callers COUNT] [-pause DURATION] TARGET...
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	"user-service.invalid/client/gen/userv1"
	"user-service.invalid/client/shown"
)

// seen is what one group of callers saw.
type seen struct {
	Calls  int64    `json:"calls"`
	Failed int64    `json:"failed"`
	Errors []string `json:"errors"` // the first of them
}

type group struct {
	name    string
	target  string
	options []grpc.DialOption
	// How many calls a channel is used for; 0: it stays.
	calls int

	mutex   sync.Mutex
	seen    seen
	created []string
}

func main() {
	file := flag.String("config", "", "service config, as JSON")
	count := flag.Int("callers", 2, "how many callers of each kind")
	pause := flag.Duration("pause", 20*time.Millisecond, "how long a caller rests between two calls")
	flag.Parse()
	config, err := os.ReadFile(*file)
	must(err)

	var groups []*group
	for _, target := range flag.Args() {
		groups = append(groups, callers(target, string(config))...)
	}
	ready, stopping := make(chan struct{}), atomic.Bool{}
	var waiting, running sync.WaitGroup
	for number := range *count * len(groups) {
		waiting.Add(1)
		running.Go(func() {
			groups[number / *count].run(number, *pause, &stopping, waiting.Done, ready)
		})
	}
	waiting.Wait()
	close(ready)
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	stopping.Store(true)
	running.Wait()
	report(groups)
}

func callers(target, config string) []*group {
	// Through one address, round robin over one connection only adds a way to fail.
	bare := "{}"
	if strings.HasPrefix(target, "dns:///") {
		bare = without(config, "methodConfig")
	}
	var groups []*group
	for name, calls := range map[string]int{"stays": 0, "comes and goes": 10} {
		groups = append(groups,
			&group{
				name: target + ", as documented, " + name, target: target, calls: calls,
				options: []grpc.DialOption{grpc.WithDefaultServiceConfig(config)},
			},
			&group{
				name: target + ", no retries, " + name, target: target, calls: calls,
				options: []grpc.DialOption{grpc.WithDefaultServiceConfig(bare), grpc.WithDisableRetry()},
			})
	}
	return groups
}

func without(config, key string) string {
	var fields map[string]any
	must(json.Unmarshal([]byte(config), &fields))
	delete(fields, key)
	text, err := json.Marshal(fields)
	must(err)
	return string(text)
}

func (g *group) dial() (*grpc.ClientConn, userv1.UserServiceClient) {
	options, err := shown.Options()
	must(err)
	options = append(options, g.options...)
	conn, err := grpc.NewClient(g.target, options...)
	must(err)
	return conn, userv1.NewUserServiceClient(conn)
}

// run is one caller. The proxies of a cluster learn of a new service a moment after
// everybody else, so the first call of all waits, and only later ones count.
func (g *group) run(number int, pause time.Duration, stopping *atomic.Bool, begun func(), ready <-chan struct{}) {
	conn, users := g.dial()
	first, cancel := context.WithTimeout(context.Background(), time.Minute)
	id := fmt.Sprintf("traffic-%d-%d", os.Getpid(), number)
	must(create(first, users, id, grpc.WaitForReady(true)))
	cancel()
	begun()
	<-ready
	for call := 1; !stopping.Load(); call++ {
		if g.calls > 0 && call%g.calls == 0 {
			must(conn.Close())
			conn, users = g.dial()
		}
		g.call(users, id, call)
		time.Sleep(pause)
	}
	must(conn.Close())
}

// call reads a user, and every fifth time creates one.
func (g *group) call(users userv1.UserServiceClient, id string, call int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var err error
	created := ""
	if call%5 == 0 {
		created = fmt.Sprintf("%s-%d", id, call)
		err = create(ctx, users, created)
	} else {
		_, err = users.GetUser(ctx, &userv1.GetUserRequest{Key: &userv1.GetUserRequest_Id{Id: id}})
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.seen.Calls++
	switch {
	case err != nil:
		g.seen.Failed++
		if len(g.seen.Errors) < 3 {
			g.seen.Errors = append(g.seen.Errors, time.Now().UTC().Format(time.TimeOnly)+" "+err.Error())
		}
	case created != "":
		g.created = append(g.created, created)
	}
}

func create(ctx context.Context, users userv1.UserServiceClient, id string, options ...grpc.CallOption) error {
	_, err := users.CreateUser(ctx, &userv1.CreateUserRequest{
		UserId: id, RequestId: uuid(), User: &userv1.User{Name: id, Email: id + "@example.com"},
	}, options...)
	return err
}

func uuid() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])
}

// report reads back what was created, and writes what was seen.
func report(groups []*group) {
	result := struct {
		Groups  map[string]seen `json:"groups"`
		Created int             `json:"created"`
		Missing []string        `json:"missing"`
	}{Groups: map[string]seen{}}
	for _, g := range groups {
		result.Groups[g.name] = g.seen
		result.Created += len(g.created)
		conn, users := g.dial()
		for ids := g.created; len(ids) > 0; ids = ids[min(100, len(ids)):] {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			got, err := users.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{
				Ids: ids[:min(100, len(ids))], AllowMissing: true,
			}, grpc.WaitForReady(true))
			must(err)
			result.Missing = append(result.Missing, got.GetMissingIds()...)
			cancel()
		}
		must(conn.Close())
	}
	must(json.NewEncoder(os.Stdout).Encode(result))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-traffic:", err)
		os.Exit(1)
	}
}
