package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// slowest is how long the origin may take over a body: as long as a purge or
	// two that come meanwhile.
	slowest = 1200 * time.Millisecond
	// originPort is where it listens.
	originPort = 8080
)

// originServer is an origin whose every URL has a version. It answers with the version that
// a URL has when the request comes, and now and then takes its time.
type originServer struct {
	srv    *http.Server
	now    func() time.Duration
	bumped func(Bump)
	hot    func(url string) bool // it takes its time for these more often

	mu       sync.Mutex
	versions map[string]int
}

func startOrigin(h *host, now func() time.Duration, bumped func(Bump), hot func(url string) bool) (*originServer, error) {
	ln, err := h.listen(originPort)
	if err != nil {
		return nil, err
	}
	o := &originServer{now: now, bumped: bumped, hot: hot, versions: map[string]int{}}
	o.srv = &http.Server{Handler: o}
	go func() { _ = o.srv.Serve(ln) }() // its end is close
	return o, nil
}

func (o *originServer) close() { _ = o.srv.Close() } // what it still sends is of no interest

// bump makes new versions of URLs, and notes them.
func (o *originServer) bump(urls ...string) {
	for _, url := range urls {
		o.mu.Lock()
		o.versions[url]++
		v := o.versions[url]
		o.mu.Unlock()
		o.bumped(Bump{url, v, o.now()})
	}
}

func (r *rig) bumped(b Bump) { r.note(func(h *History) { h.Bumps = append(h.Bumps, b) }) }

func (o *originServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	host, _, _ := strings.Cut(q.Host, ":")
	url := host + q.URL.Path
	o.mu.Lock()
	version := o.versions[url]
	o.mu.Unlock()
	tag := fmt.Sprintf(`"%d"`, version)
	w.Header().Set("Cache-Control", "max-age=600")
	w.Header().Set("Cache-Tag", tagOf(url))
	w.Header().Set("ETag", tag)
	if q.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := bodyOf(url, version)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.Header().Set("Content-Type", "text/plain")
	half := rand.IntN(len(body))
	_, err := w.Write(body[:half])
	if rand.IntN(3) == 0 || o.hot(url) && rand.IntN(2) == 0 {
		err = errors.Join(err, http.NewResponseController(w).Flush())
		select {
		case <-time.After(rand.N(slowest)):
		case <-q.Context().Done():
		}
	}
	if err == nil {
		_, _ = w.Write(body[half:]) // an edge that is killed meanwhile does not read it
	}
}
