package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// edgeClient is a client with one connection, which it keeps.
type edgeClient struct {
	net.Conn
	r *bufio.Reader
}

func dialEdge(t *testing.T, addr string) *edgeClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &edgeClient{c, bufio.NewReader(c)}
}

// get asks for a page. An error is that there is no answer.
func (c *edgeClient) get(n int) (*http.Response, error) {
	c.SetDeadline(time.Now().Add(eventuallyScript))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: www.example.test\r\n\r\n", pagePath(n)); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err == nil {
		_, err = resp.Body.Read(make([]byte, 100))
	}
	return resp, err
}

// F12: an edge that is out of descriptors goes on answering on the connections that
// it has, takes new ones in the place of those that rest, says so, and is over it
// when the others have gone.
func TestEdgeDescriptors(t *testing.T) {
	t.Parallel()
	r := newCrashRig(t, t.TempDir())
	r.prefix = "ulimit -n 64; "
	p := r.start(true)
	defer p.kill()
	hit := func(what string, c *edgeClient) {
		t.Helper()
		resp, err := c.get(1)
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, p.text())
		}
		if status := resp.Header.Get("Cache-Status"); resp.StatusCode != http.StatusOK || !strings.Contains(status, "hit") {
			t.Errorf("%s: %s, %s", what, resp.Status, status)
		}
	}
	first := dialEdge(t, r.load.addr)
	if resp, err := first.get(1); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the first answer: %v, %v", resp, err)
	}
	hit("the first client", dialEdge(t, r.load.addr))
	for i := range 100 { // each rests after its answer
		hit(fmt.Sprintf("client %d", i), dialEdge(t, r.load.addr))
	}
	var silent []net.Conn
	for range 100 { // these have asked nothing, and take what is left
		silent = append(silent, dialEdge(t, r.load.addr))
	}
	if !poll(eventuallyScript, func() bool { return strings.Contains(p.text(), "too many open files") }) {
		t.Fatalf("the log says nothing:\n%s", p.text())
	}
	for _, c := range silent {
		c.Close()
	}
	hit("a client after it", dialEdge(t, r.load.addr))
	if resp, err := dialEdge(t, r.load.addr).get(2); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a miss after it: %v, %v", resp, err)
	}
	if n := strings.Count(p.text(), "could not be taken"); n == 0 || n > 3 {
		t.Errorf("said %d times:\n%s", n, p.text())
	}
	r.check(p)
}
