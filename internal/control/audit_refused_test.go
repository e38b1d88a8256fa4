package control

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefusalsAreCounted: however fast a token is refused, it gets ten lines and then one
// a second, which counts the others; what it changes meanwhile has its lines all the same,
// and so have the refusals of others.
func TestRefusalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := openAudit(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{audit: a, now: time.Now}
		call := func(who, method string, status int) {
			r := withCaller(httptest.NewRequest(method, "/v1/sites/www/blobs/x", nil), &actor{name: who})
			s.record(r, status, nil)
		}
		lines := func() int {
			b, err := os.ReadFile(filepath.Join(dir, auditName))
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Count(b, []byte("\n"))
		}
		refusals := []struct {
			method string
			status int
		}{{"GET", http.StatusForbidden}, {"POST", http.StatusTooManyRequests}, {"PUT", http.StatusNotFound}, {"PUT", http.StatusInsufficientStorage}}
		const flood, changes = 2000, 20
		for i := range flood {
			how := refusals[i%len(refusals)]
			call("ci", how.method, how.status)
			if i%(flood/changes) == 0 {
				call("ci", "POST", http.StatusOK)
			}
		}
		call("other", "POST", http.StatusForbidden)
		if n := lines(); n != refusedBurst+changes+1 {
			t.Errorf("%d lines at once, want %d", n, refusedBurst+changes+1)
		}
		time.Sleep(2 * refusedEvery)
		synctest.Wait()
		if n := lines(); n != refusedBurst+changes+2 {
			t.Errorf("%d lines after that, want one more", n)
		}
		for range flood { // what is only counted is shown to who asks, and is not lost at the end
			call("ci", "GET", http.StatusForbidden)
		}
		out, err := a.newest(maxAuditShown)
		if err != nil {
			t.Fatal(err)
		}
		refused, changed := 0, 0
		for _, l := range out.Lines {
			switch {
			case l.Status == http.StatusOK:
				changed++
			case l.Who == "ci":
				refused += max(1, l.Times)
			}
		}
		if refused != 2*flood || changed != changes {
			t.Errorf("%d refusals of %d are written down, %d changes of %d", refused, 2*flood, changed, changes)
		}
		call("ci", "GET", http.StatusForbidden)
		before := lines()
		if err := a.close(); err != nil || lines() != before+1 {
			t.Errorf("%d lines at the end, %d before: %v", lines(), before, err)
		}
		time.Sleep(2 * refusedEvery)
	})
}
