package edge

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestGenerationsAreNeverMixed: while releases flip, each answer's body, ETag
// and Perigee-Release are of one release, in the loop and in the handler.
func TestGenerationsAreNeverMixed(t *testing.T) {
	files := map[string][]byte{"r1/index.html": []byte("page one"), "r2/index.html": []byte("page two, longer")}
	var c Config
	c.Sites = []Site{{}}
	c.Sites[0] = Site{Name: "shop", Hosts: []string{"shop.test"}, Origin: http.DefaultTransport}
	pushSites(t)(&c)
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	w := &world{edge: e, files: files}
	body := map[string]string{} // by release
	for _, name := range []string{"r1", "r2"} {
		id, err := w.activate(name)
		if err != nil {
			t.Fatal(err)
		}
		body[id] = string(files[name+"/index.html"])
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; !stop.Load() || n == 0; n++ {
				var head, got string
				if i%2 == 0 {
					out, b, ok := Hit(nil, []byte("GET / HTTP/1.1\r\nHost: www.test\r\n\r\n"), e.Snapshot(), e.now())
					if !ok {
						t.Error("no hit")
						return
					}
					var text strings.Builder
					b.WriteTo(&text)
					b.Close()
					head, got = string(out), text.String()
				} else {
					r, _ := http.NewRequest(http.MethodGet, "http://www.test/", nil)
					a := newAnswer()
					e.ServeHTTP(a, r)
					var text strings.Builder
					a.header.Write(&text)
					head, got = text.String(), a.body.String()
				}
				_, id, _ := strings.Cut(head, "Perigee-Release: ")
				id, _, _ = strings.Cut(id, "\r\n")
				if want, ok := body[id]; !ok || got != want {
					t.Errorf("release %q with %q", id, got)
					return
				}
			}
		})
	}
	for i := range 10 {
		if _, err := w.activate([]string{"r1", "r2"}[i%2]); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
}
