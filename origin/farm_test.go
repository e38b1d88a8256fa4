package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// farm is an in-memory network of origins: each address has a behaviour that
// runs once a connection; without one, connections are refused.
type farm struct {
	mu     sync.Mutex
	behave map[string]func(net.Conn)
	dials  map[string]int
}

func newFarm() *farm { return &farm{behave: map[string]func(net.Conn){}, dials: map[string]int{}} }

func (f *farm) set(address string, behave func(net.Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behave[address] = behave
}

func (f *farm) dialled(address string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials[address]
}

func (f *farm) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials[address]++
	behave := f.behave[address]
	if behave == nil {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		behave(server)
	}()
	return client, nil
}

// answers serves each request of a connection with text.
func answers(text string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

// says answers with a body of name.
func says(name string) func(net.Conn) {
	return answers(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name))
}

// thenCloses answers the first request with text and closes.
func thenCloses(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// thenHangs answers the first request with text and says no more.
func thenHangs(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
			_, _ = c.Read(make([]byte, 1)) // until the pool hangs up
		}
	}
}

func newPool(t *testing.T, f *farm, c PoolConfig) *Pool {
	t.Helper()
	if len(c.Origins) == 0 {
		c.Origins = []string{"http://a", "http://b", "http://c"}
	}
	c.Seed = orSeed(c.Seed)
	c.DialContext = f.dial
	p, err := NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func orSeed(seed uint64) uint64 {
	if seed == 0 {
		return 1
	}
	return seed
}

func send(p *Pool, method, body string) (string, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://www.example.com/path?q=1", r)
	if err != nil {
		return "", err
	}
	resp, err := p.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func get(t *testing.T, p *Pool) string {
	t.Helper()
	got, err := send(p, http.MethodGet, "")
	if err != nil {
		t.Error(err)
	}
	return got
}

func sequence(t *testing.T, p *Pool, n int) string {
	t.Helper()
	var all strings.Builder
	for range n {
		all.WriteString(get(t, p))
	}
	return all.String()
}

func bubble(t *testing.T, run func(t *testing.T, f *farm)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm()
		for _, name := range []string{"a", "b", "c"} {
			f.set(name+":80", says(name))
		}
		run(t, f)
	})
}
