package edge

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestInterimHoldsNobodyUp: a client that takes nothing, not even the interim
// responses to the request by which it leads a fetch, does not hold up who waits
// for that; and what it takes in the end is whole and in order.
func TestInterimHoldsNobodyUp(t *testing.T) {
	long := strings.Repeat("x", 1<<20) // more than the network holds
	synctest.Test(t, func(t *testing.T) {
		began, goesOn := make(chan struct{}), make(chan struct{})
		begins := sync.OnceFunc(func() { close(began) })
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			told := httptrace.ContextClientTrace(r.Context()).Got1xxResponse
			begins()
			<-goesOn
			for i := range 2 * maxInterim {
				told(http.StatusEarlyHints, textproto.MIMEHeader{"N": {fmt.Sprint(i)}, "Link": {long}})
			}
			w.Header().Set("Cache-Control", "max-age=60")
			io.WriteString(w, "hello")
		})
		e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, EarlyHintsAll: true, Origin: HandlerTransport(origin)}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		c := dialLoop(t, e)
		io.WriteString(c, askGated)
		<-began
		start, second := time.Now(), httptest.NewRecorder()
		waits := make(chan struct{})
		go func() { call(t.Context(), e, second); close(waits) }()
		synctest.Wait()
		close(goesOn)
		<-waits
		if took := time.Since(start); second.Body.String() != "hello" || took > 0 || !strings.Contains(second.Header().Get("Cache-Status"), "collapsed") {
			t.Errorf("who waited has %q after %v: %v", second.Body, took, second.Header())
		}
		r := bufio.NewReader(c)
		for i := 0; ; i++ {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 200 {
				if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil || i < maxInterim || i > maxInterim+1 {
					t.Errorf("%q, %v behind %d interim responses", body, err, i)
				}
				break
			}
			if resp.StatusCode != http.StatusEarlyHints || resp.Header.Get("N") != fmt.Sprint(i) || resp.Header.Get("Link") != long {
				t.Fatalf("%d: %d, %.100v", i, resp.StatusCode, resp.Header)
			}
		}
	})
}
