package edge

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestUpdatedHeader: RFC 9111 §3.2.
func TestUpdatedHeader(t *testing.T) {
	stored := http.Header{"Content-Type": {"text/plain"}, "Content-Length": {"5"}, "Content-Encoding": {"gzip"}, "Content-Range": {"bytes 0-4/9"},
		"Etag": {`"1"`}, "Content-Digest": {"x"}, "Age": {"7"}, "X-Kept": {"1"}, "X-Twice": {"1", "2"}}
	fresh := http.Header{"Content-Type": {"text/css"}, "Content-Length": {"0"}, "Content-Encoding": {"br"}, "Content-Range": {"bytes 0-0/1"},
		"Etag": {`W/"1"`}, "Content-Digest": {"y"}, "X-Twice": {"3"}}
	want := http.Header{"Content-Type": {"text/css"}, "Content-Length": {"5"}, "Content-Encoding": {"gzip"}, "Content-Range": {"bytes 0-4/9"},
		"Etag": {`"1"`}, "Content-Digest": {"x"}, "X-Kept": {"1"}, "X-Twice": {"3"}}
	if got := updatedHeader(stored, fresh); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if stored.Get("Content-Type") != "text/plain" {
		t.Error("the stored header changed under its readers")
	}
}

// TestHostMoves: what was stored for a site is not used when its host has gone
// to another one (RFC 9111 §7.2).
func TestHostMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := func(name, body string) Site {
			return Site{Name: name, Hosts: []string{"s.test"}, Origin: HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				io.WriteString(w, body)
			}))}
		}
		e, err := New(Config{Sites: []Site{site("one", "of one")}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for _, c := range []struct{ name, want string }{{"one", "of one"}, {"two", "of two"}, {"one", "of one"}} {
			if err := e.SetSites([]Site{site(c.name, c.want)}); err != nil {
				t.Fatal(err)
			}
			w := newAnswer()
			call(t.Context(), e, w)
			synctest.Wait()
			if w.body.String() != c.want {
				t.Errorf("on site %s: %q", c.name, w.body.String())
			}
		}
	})
}

// records keeps access records.
type records []AccessRecord

func (l *records) Log(r *AccessRecord) { *l = append(*l, *r) }

// TestCacheStatus: RFC 9211, short for clients, full for the log.
func TestCacheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log records
		e, err := New(Config{Name: "fra1", Access: &log, Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "private")
		}))}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		w := newAnswer()
		call(t.Context(), e, w)
		if got := strings.Join(w.header["Cache-Status"], "|"); got != "fra1; fwd=uri-miss" {
			t.Errorf("the client sees %s", got)
		}
		if want := `fra1; fwd=uri-miss; fwd-status=200; detail=private`; len(log) != 1 || log[0].CacheStatus != want {
			t.Errorf("the log says %+v", log)
		}
	})
	for _, c := range []struct {
		status cacheStatus
		key    string
		want   string
	}{
		{cacheStatus{hit: true, hasTTL: true, ttl: -1500 * time.Millisecond}, "k", `n; hit; ttl=-2; key="k"`},
		{cacheStatus{fwd: "stale", fwdStatus: 304, stored: true, collapsed: true, detail: "d"}, `a"b\`, `n; fwd=stale; fwd-status=304; stored; collapsed; key="a\"b\\"; detail=d`},
	} {
		if got := string(c.status.appendTo(nil, "n", true, c.key)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
