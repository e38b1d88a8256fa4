package edge

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestStats: what an edge answered, by site, cache and path; counters outlive a
// change of the sites.
func TestStats(t *testing.T) {
	origin := roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/down" {
			return nil, errors.New("no way")
		}
		h := http.Header{"Cache-Control": {"max-age=60"}}
		return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 1000))), ContentLength: 1000, ProtoMajor: 1, ProtoMinor: 1}, nil
	})
	sites := []Site{{Name: "a", Hosts: []string{"a.test"}, Origin: origin}}
	e, err := New(Config{Sites: sites, MemoryBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, ln) }()
	ask := func(host, path string, times int) {
		t.Helper()
		for range times {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			c.Close()
			fetchesEnd(e)
		}
	}
	ask("a.test", "/1", 1)
	sites = append(sites, Site{Name: "b", Hosts: []string{"b.test"}, Origin: origin})
	if err := e.SetSites(sites); err != nil {
		t.Fatal(err)
	}
	ask("a.test", "/1", 3)
	ask("b.test", "/down", 2)
	ask("nobody.test", "/", 1)
	ask("a.test\r\nBad Name: x", "/", 1) // refused by the loop
	for i := range 60 {
		ask("b.test", "/"+strings.Repeat("y", i+1), 1)
	}
	if err := e.Purge(Purge{Site: "a", All: true}); err != nil {
		t.Fatal(err)
	}
	cancel() // a request is counted when its answer is out
	if err := <-served; err != nil {
		t.Error(err)
	}
	st := e.Stats()
	for _, c := range []struct {
		site string
		how  Answered
		n    uint64
	}{
		{"a", Answered{"miss", "general"}, 1}, {"a", Answered{"hit", "fast"}, 3},
		{"b", Answered{"error", "general"}, 2}, {"b", Answered{"miss", "general"}, 60},
		{"", Answered{"local", "general"}, 1}, {"", Answered{"local", "fast"}, 1},
	} {
		if got := st.Sites[c.site].Requests[c.how]; got != c.n {
			t.Errorf("site %q %v: %d, want %d of %v", c.site, c.how, got, c.n, st.Sites[c.site].Requests)
		}
	}
	if a := st.Sites["a"]; a.Bytes != 4000 || a.Classes != [6]uint64{2: 4} {
		t.Errorf("site a: %+v", a)
	}
	if st.Sites["b"].Classes[5] != 2 || st.OriginErrors["b"] != 2 || st.OriginErrors["a"] != 0 || st.Purges != 1 || st.Accepted != 68 {
		t.Errorf("%+v", st)
	}
	if s := st.Store; s.Evictions == 0 || s.Objects == 0 || s.Bytes == 0 || s.Bytes > s.Budget || uint64(s.Objects)+s.Evictions != 61 {
		t.Errorf("store %+v", s)
	}
}
