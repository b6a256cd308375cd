// An open loop of CreateUser by a stock grpc-go client: ADDRESS open --kind article-create, and
// further options of benches/load, which it takes the place of. It prints the same JSON object.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"peer/pb"
)

// As a client of a loaded service would set it.
const timeout = time.Second

// What came of the calls.
type outcomes struct {
	mu       sync.Mutex
	okMicros []int64
	outside  int
	others   map[codes.Code]int
}

func main() {
	if len(os.Args) < 3 || os.Args[2] != "open" {
		log.Fatal("usage: go-load ADDRESS open --kind article-create --rate N --seconds N [--first N] [--warm-up N]")
	}
	kind := flag.String("kind", "", "the call: article-create")
	first := flag.Int("first", 0, "number of the first user")
	rate := flag.Float64("rate", 0, "calls a second")
	warmUp := flag.Float64("warm-up", 0, "for how many seconds calls arrive before answers are counted")
	counted := flag.Float64("seconds", 0, "for how many seconds answers are counted")
	connections := flag.Int("connections", 100, "how many connections share the calls")
	// It ends the process where it fails.
	_ = flag.CommandLine.Parse(os.Args[3:])
	if *kind != "article-create" {
		log.Fatalf("%q is not called, only article-create is", *kind)
	}

	clients := make([]pb.UserServiceClient, *connections)
	for i := range clients {
		connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		connection.Connect()
		clients[i] = pb.NewUserServiceClient(connection)
	}

	found := outcomes{others: map[codes.Code]int{}}
	began := time.Now()
	from, until := began.Add(seconds(*warmUp)), began.Add(seconds(*warmUp+*counted))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var calls sync.WaitGroup
	arrived := 0
	for now := began; now.Before(until); now = <-tick.C {
		for due := int(now.Sub(began).Seconds() * *rate); arrived < due; {
			arrived++
			arrival := began.Add(seconds(float64(arrived) / *rate))
			client, n := clients[arrived%len(clients)], *first+arrived
			calls.Go(func() { found.add(create(client, n, arrival), arrival, from, until) })
		}
	}
	calls.Wait()
	found.print(*counted)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func create(client pb.UserServiceClient, n int, arrival time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), arrival.Add(timeout))
	defer cancel()
	_, err := client.CreateUser(ctx, &pb.CreateUserRequest{User: &pb.User{
		Name: fmt.Sprintf("User Number %d", n), Email: fmt.Sprintf("user.%d@example.com", n), Age: int32(n % 100),
		Id: fmt.Sprintf("u-%d", n),
	}})
	return err
}

// add takes note of a call that has ended, and whether it did so between from and until.
func (o *outcomes) add(err error, arrival, from, until time.Time) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.others[status.Code(err)]++
		return
	}
	if now.Before(from) || now.After(until) {
		o.outside++
	}
	o.okMicros = append(o.okMicros, now.Sub(arrival).Microseconds())
}

func (o *outcomes) print(counted float64) {
	slices.Sort(o.okMicros)
	percentile := func(of int) int64 {
		if len(o.okMicros) == 0 {
			return 0
		}
		return o.okMicros[min(len(o.okMicros)*of/100, len(o.okMicros)-1)]
	}
	others := map[string]int{}
	for code, calls := range o.others {
		others[fmt.Sprint(int(code))] = calls
	}
	// Without an answer in time its calls end with DEADLINE_EXCEEDED.
	line := map[string]any{
		"calls": len(o.okMicros), "seconds": counted, "p50_us": percentile(50), "p99_us": percentile(99),
		"unanswered": 0, "outside": o.outside, "others": others,
	}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}
