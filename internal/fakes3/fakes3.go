// Package fakes3 is a bucket for tests: gofakes3 over HTTP on loopback, which fails,
// lies, hangs and grows old as it is told. It is for tests alone.
package fakes3

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Name is the bucket's.
const Name = "perigee-blobs"

// Fault is what is wrong with the bucket.
type Fault string

// The faults. The zero Fault is none.
const (
	Well    Fault = ""
	Fails   Fault = "fails"   // 503 to everything
	Denies  Fault = "denies"  // 403 to everything
	Cuts    Fault = "cuts"    // every connection, without an answer
	Hangs   Fault = "hangs"   // takes what comes, and does not answer
	Lies    Fault = "lies"    // one octet of every object that it gives is another
	Shrinks Fault = "shrinks" // the last octet of every object that it gives is missing
	Slow    Fault = "slow"    // every answer takes slowness longer
)

// slowness is long for a bucket and short for a test.
const slowness = 150 * time.Millisecond

// Server is a bucket.
type Server struct {
	URL string // its endpoint

	backend *s3mem.Backend
	clock   gofakes3.TimeSourceAdvancer
	handler http.Handler

	mu    sync.Mutex
	fault Fault
	calls map[string]int // by method
	puts  []string       // the keys that a PUT came for
	end   chan struct{}
}

// Start opens a bucket at an address of host, until the test ends. Credentials are not looked at.
func Start(tb testing.TB, host string) *Server {
	tb.Helper()
	s := &Server{clock: gofakes3.FixedTimeSource(time.Now()), calls: map[string]int{}, end: make(chan struct{})}
	s.backend = s3mem.New(s3mem.WithTimeSource(s.clock))
	if err := s.backend.CreateBucket(Name); err != nil {
		tb.Fatal(err)
	}
	s.handler = gofakes3.New(s.backend, gofakes3.WithTimeSource(s.clock), gofakes3.WithTimeSkewLimit(0)).Server()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	hs := httptest.NewUnstartedServer(s)
	hs.Listener.Close()
	hs.Listener = l
	hs.Start()
	s.URL = hs.URL
	tb.Cleanup(func() {
		close(s.end) // whoever hangs goes
		hs.CloseClientConnections()
		hs.Close()
	})
	return s
}

// Break has the bucket behave so from now on.
func (s *Server) Break(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Age moves the bucket's clock on: what is in it is so much older.
func (s *Server) Age(by time.Duration) { s.clock.Advance(by) }

// Calls returns how many requests of a method came.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Puts returns how often an object was sent whose key begins with prefix.
func (s *Server) Puts(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range s.puts {
		if strings.HasPrefix(key, prefix) {
			n++
		}
	}
	return n
}

// Objects returns the keys and sizes of all objects.
func (s *Server) Objects(tb testing.TB) map[string]int64 {
	tb.Helper()
	list, err := s.backend.ListBucket(Name, nil, gofakes3.ListBucketPage{})
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]int64{}
	for _, o := range list.Contents {
		out[o.Key] = o.Size
	}
	return out
}

// Fill puts n small objects whose keys begin with prefix.
func (s *Server) Fill(tb testing.TB, prefix string, n int) {
	tb.Helper()
	for i := range n {
		if _, err := s.backend.PutObject(Name, fmt.Sprintf("%s%06d", prefix, i), nil, strings.NewReader("x"), 1, nil); err != nil {
			tb.Fatal(err)
		}
	}
}

// Remove removes an object behind its owner's back.
func (s *Server) Remove(tb testing.TB, key string) {
	tb.Helper()
	if _, err := s.backend.DeleteObject(Name, key); err != nil {
		tb.Fatal(err)
	}
}

// ServeHTTP is the bucket's side of a call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.calls[r.Method]++
	if r.Method == http.MethodPut {
		s.puts = append(s.puts, strings.TrimPrefix(r.URL.Path, "/"+Name+"/"))
	}
	s.mu.Unlock()
	switch fault {
	case Fails:
		refuse(w, http.StatusServiceUnavailable, "SlowDown", "please reduce your request rate")
	case Denies:
		refuse(w, http.StatusForbidden, "AccessDenied", "access denied")
	case Cuts:
		panic(http.ErrAbortHandler)
	case Hangs:
		select {
		case <-s.end:
		case <-r.Context().Done():
		}
	case Lies, Shrinks:
		s.lie(w, r, fault)
	case Slow:
		select {
		case <-time.After(slowness):
		case <-s.end:
		}
		s.handler.ServeHTTP(w, r)
	default:
		s.handler.ServeHTTP(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

// lie answers a GET of a blob with something else.
func (s *Server) lie(w http.ResponseWriter, r *http.Request, how Fault) {
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256-") && len(body) > 0 {
		if how == Shrinks {
			body = body[:len(body)-1]
		} else {
			body[len(body)/2] ^= 1
		}
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body) // the other end looks at what comes
}
