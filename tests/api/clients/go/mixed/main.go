// Command go-mixed makes every call of both contracts with grpc-go, by several targets
// concurrently, until its standard input ends; it watches and imports meanwhile. What
// failed is counted, and written as a line of JSON for each line that it reads.
//
// The programs in Java, Python and JavaScript next to it do the same
// (tests/proxies/README.md).
//
// usage: go-mixed SERVICE_CONFIG USERS WINDOW NAME=ADDR...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// pause is how long a caller waits between two rounds of calls.
const pause = 200 * time.Millisecond

const (
	// callTimeout and importTimeout are long, because machines may be slow.
	callTimeout   = time.Minute
	importTimeout = 5 * time.Minute
)

// window is what a server may send before it is told to go on, by stream and by
// connection. 0: what the library takes.
var window int32

func main() {
	config, err := os.ReadFile(os.Args[1])
	must(err)
	users, err := strconv.Atoi(os.Args[2])
	must(err)
	bytes, err := strconv.ParseInt(os.Args[3], 10, 32)
	must(err)
	window = int32(bytes)

	stop := make(chan struct{})
	var running sync.WaitGroup
	var counts []*count
	counted := func(target, kind string) *count {
		counts = append(counts, &count{Target: target, Kind: kind, Failed: map[string]int{}})
		return counts[len(counts)-1]
	}
	for _, argument := range os.Args[4:] {
		name, addr, _ := strings.Cut(argument, "=")
		bare := counted(name, "bare")
		plain := dial(addr, grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
		running.Go(func() { call(plain, bare, nil, stop) })

		retried := counted(name, "retried")
		conn := dial(addr, grpc.WithDefaultServiceConfig(string(config)))
		watched := newWatched()
		called := make(chan struct{})
		running.Go(func() { call(conn, retried, watched, stop); close(called) })

		watches := counted(name, "watch")
		running.Go(func() { watched.watch(conn, watches, called) })
		imports := counted(name, "import")
		running.Go(func() { imported(conn, imports, users, stop) })
	}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		report(counts)
	}
	close(stop)
	running.Wait()
	report(counts)
}

func dial(addr string, options ...grpc.DialOption) *grpc.ClientConn {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	conn, err := grpc.NewClient(addr, options...)
	must(err)
	return conn
}

// count is what one kind of calls by one target has seen since the last report.
type count struct {
	Target string         `json:"target"`
	Kind   string         `json:"kind"`
	Calls  int            `json:"calls"`
	Failed map[string]int `json:"failed"`
	mutex  sync.Mutex
}

func (c *count) ended() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.Calls++
}

func (c *count) failed(method string, err error) {
	s := status.Convert(err)
	c.failedWith(fmt.Sprintf("%s %v: %.160s", method, s.Code(), s.Message()))
}

func (c *count) failedWith(what string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.Failed[what]++
}

func report(counts []*count) {
	for _, c := range counts {
		c.mutex.Lock()
	}
	text, err := json.Marshal(counts)
	must(err)
	fmt.Println(string(text))
	for _, c := range counts {
		c.Calls, c.Failed = 0, map[string]int{}
		c.mutex.Unlock()
	}
}

func stopped(stop <-chan struct{}, after time.Duration) bool {
	select {
	case <-stop:
		return true
	case <-time.After(after):
		return false
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-mixed:", err)
		os.Exit(1)
	}
}
