package edge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/origin"
)

// Many edges, one shield: the origin is asked once, whoever asks.
func TestShield(t *testing.T) {
	tiered(t, []string{"a", "b", "c", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		for _, e := range f.edges {
			e.SetApplied(7, testLog)
		}
		for i := range 4 {
			resp, body := f.ask(i, "/x")
			if body != "1" || resp.StatusCode != 200 {
				t.Errorf("edge %d: %d %q", i, resp.StatusCode, body)
			}
			if resp.Header.Get(asOfField) != "" || resp.Header.Get("Surrogate-Key") != "" {
				t.Errorf("a client was told %v", resp.Header)
			}
			if cs := strings.Join(resp.Header["Cache-Status"], ", "); i == 1 && cs != "shield; hit; ttl=60, b; fwd=uri-miss; ttl=60; stored" {
				t.Errorf("Cache-Status %s", cs)
			}
		}
		h := <-f.seen
		if f.hits.Load() != 1 || h.Get("X-Forwarded-For") != clientAddr.String() || h.Get(appliedField) != "" ||
			strings.Join(h["Cdn-Loop"], ", ") != "perigee-a, perigee-shield" || strings.Join(h["Via"], ", ") != "1.1 perigee-a, 1.1 perigee-shield" {
			t.Errorf("%d requests to the origin, with %v", f.hits.Load(), h)
		}
		for name := range f.edges {
			if o := f.stored(name, "/x"); o == nil || o.asOf.seq != 7 {
				t.Errorf("edge %s has %+v", name, o)
			}
		}
	})
}

// Siblings: each key has one home among them, whoever is asked first.
func TestSiblings(t *testing.T) {
	names := []string{"a", "b", "c"}
	tiered(t, names, names, func(t *testing.T, f *fleet) {
		homes := map[string]int{}
		for n := range 30 {
			path := fmt.Sprintf("/%d", n)
			for i := range 3 {
				f.ask((n+i)%3, path)
			}
			home := "a"
			for i := range names {
				s, _ := f.edges[names[i]].snap.Load().sites.find("shop.test")
				if p := s.shieldFor("http://shop.test"+path, time.Now()); p == nil {
					home = names[i]
				}
			}
			homes[home]++
		}
		if f.hits.Load() != 30 || len(homes) != 3 {
			t.Errorf("%d requests to the origin for 30 keys; homes %v", f.hits.Load(), homes)
		}
	})
}

// A shield that is gone costs nothing but a step: another one, or the origin;
// and it is asked again when it is back.
func TestShieldDown(t *testing.T) {
	tiered(t, []string{"a", "b"}, []string{"b"}, func(t *testing.T, f *fleet) {
		s, _ := f.edges["a"].snap.Load().sites.find("shop.test")
		s.Shields[0].Transport = &swapped{RoundTripper: s.Shields[0].Transport}
		gone := s.Shields[0].Transport.(*swapped)
		gone.err.Store(true)
		for n := range 5 {
			if resp, body := f.ask(0, fmt.Sprintf("/%d", n)); resp.StatusCode != 200 || body != fmt.Sprint(n+1) {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		}
		if n := gone.asked.Load(); n != 1 {
			t.Errorf("it was asked %d times while it was down", n)
		}
		gone.err.Store(false)
		time.Sleep(peerDown)
		if f.ask(0, "/back"); f.stored("b", "/back") == nil {
			t.Error("it was not asked when it was back")
		}
	})
}

// A shield that does not have the site yet, since it has not read the new
// perigee.toml, refuses: the origin is asked, and no client sees the refusal.
func TestShieldWithoutTheSite(t *testing.T) {
	tiered(t, []string{"a", "b"}, []string{"b"}, func(t *testing.T, f *fleet) {
		if err := f.edges["b"].SetSites(nil); err != nil {
			t.Fatal(err)
		}
		if resp, body := f.ask(0, "/x"); resp.StatusCode != 200 || body != "1" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		if s, _ := f.edges["a"].snap.Load().sites.find("shop.test"); s.Shields[0].down.Load() != 0 {
			t.Error("it was taken for unreachable")
		}
	})
}

// swapped is a transport that fails when told to.
type swapped struct {
	http.RoundTripper
	err   atomic.Bool
	asked atomic.Int64
}

func (s *swapped) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	if s.err.Load() {
		return nil, errors.New("no route to host")
	}
	return s.RoundTripper.RoundTrip(r)
}

// push-design, Purge: a shield that has not applied what its child has does
// not answer from its store; the child keeps the lower asOf of both.
func TestFillThroughAShieldThatIsBehind(t *testing.T) {
	tiered(t, []string{"a", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		a, shield := f.edges["a"], f.edges["shield"]
		a.SetApplied(41, testLog)
		shield.SetApplied(41, testLog)
		if _, body := f.ask(0, "/x"); body != "1" {
			t.Fatalf("%q", body)
		}
		// The purge has come to the child and not to the shield, whose response
		// it is for. After 200 ms the shield passes the request on.
		purge := Purge{Seq: 42, Log: testLog, URL: "http://shop.test/x"}
		a.Purge(purge)
		begin := time.Now()
		if _, body := f.ask(0, "/x"); body != "2" || time.Since(begin) != maxApplyWait {
			t.Errorf("%q after %v", body, time.Since(begin))
		}
		// Its answer is as of 41: the child must not keep it.
		if o := f.stored("a", "/x"); o != nil && o.asOf.seq >= 42 {
			t.Errorf("the child stores it as of %d", o.asOf.seq)
		}
		// When the purge comes within the wait, the shield answers at once.
		a.Purge(Purge{Seq: 43, Log: testLog, URL: "http://shop.test/x"})
		time.AfterFunc(50*time.Millisecond, func() {
			shield.Purge(purge)
			shield.Purge(Purge{Seq: 43, Log: testLog, URL: "http://shop.test/x"})
		})
		begin = time.Now()
		if _, body := f.ask(0, "/x"); body != "3" || time.Since(begin) != 50*time.Millisecond {
			t.Errorf("%q after %v", body, time.Since(begin))
		}
		if o := f.stored("a", "/x"); o == nil || o.asOf.seq != 43 {
			t.Errorf("the child stores %+v", o)
		}
		if _, body := f.ask(0, "/x"); body != "3" {
			t.Errorf("%q", body)
		}
	})
}

// A shield may be ahead: what it had stored before is as of then, and a purge
// that reaches the child later covers it there.
func TestFillThroughAShieldThatIsAhead(t *testing.T) {
	tiered(t, []string{"a", "b", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		a, b, shield := f.edges["a"], f.edges["b"], f.edges["shield"]
		for _, e := range f.edges {
			e.SetApplied(10, testLog)
		}
		f.ask(1, "/x") // b's fetch fills the shield, as of 10
		a.SetApplied(5, testLog)
		shield.SetApplied(20, testLog)
		b.SetApplied(20, testLog)
		if _, body := f.ask(0, "/x"); body != "1" {
			t.Errorf("%q", body)
		}
		if o := f.stored("a", "/x"); o == nil || o.asOf.seq != 10 {
			t.Errorf("the child stores %+v, want as of 10", o)
		}
		// A tag purge of seq 15 that the child hears of late.
		if hard, _ := a.purges.check(&f.stored("a", "/x").scopes, f.stored("a", "/x").asOf); hard {
			t.Error("purged already")
		}
		a.Purge(Purge{Seq: 15, Log: testLog, URL: "http://shop.test/x"})
		shield.Purge(Purge{Seq: 15, Log: testLog, URL: "http://shop.test/x"})
		if _, body := f.ask(0, "/x"); body != "2" {
			t.Errorf("after the purge: %q", body)
		}
	})
}

// A fill under way through a shield when the purge comes is kept by neither.
func TestPurgeAgainstFillThroughShield(t *testing.T) {
	tiered(t, []string{"a", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		gate := make(chan struct{})
		f.answer = func(w http.ResponseWriter, r *http.Request) {
			n := f.hits.Load()
			if n == 1 {
				<-gate
			}
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Surrogate-Key", "news")
			fmt.Fprint(w, n)
		}
		for _, e := range f.edges {
			e.SetApplied(1, testLog)
		}
		done := make(chan string)
		go func() {
			_, body := f.askNow(0, "/x")
			done <- body
		}()
		synctest.Wait()
		for _, e := range f.edges {
			e.Purge(Purge{Seq: 2, Log: testLog, Site: "shop", Tag: "news"})
		}
		close(gate)
		if body := <-done; body != "1" {
			t.Errorf("%q", body)
		}
		synctest.Wait()
		if resp, body := f.ask(0, "/x"); body != "2" || resp.Header.Get("Surrogate-Key") != "" {
			t.Errorf("after the purge %q, %v", body, resp.Header)
		}
		// The child knows the tags too, though no client does.
		f.edges["a"].Purge(Purge{Seq: 3, Log: testLog, Site: "shop", Tag: "news"})
		f.edges["shield"].Purge(Purge{Seq: 3, Log: testLog, Site: "shop", Tag: "news"})
		if _, body := f.ask(0, "/x"); body != "3" {
			t.Errorf("after the purge by tag %q", body)
		}
	})
}

// The fields of peers are worth nothing elsewhere: a client can neither send
// nor read them, an origin neither; and the peers' door is for peers alone.
func TestPeerFieldsAreBelievedFromPeersAlone(t *testing.T) {
	tiered(t, []string{"a", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		f.answer = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set(asOfField, "18446744073709551615")
			w.Header().Set("Surrogate-Key", "secret")
			io.WriteString(w, r.Header.Get(appliedField))
		}
		for _, e := range f.edges {
			e.SetApplied(3, testLog)
		}
		for i, path := range []string{"/through", "/direct"} {
			begin := time.Now()
			resp, body := f.ask(i, path, appliedField, "99", asOfField, "99")
			if body != "" || resp.Header.Get(asOfField) != "" || resp.Header.Get("Surrogate-Key") != "" || time.Since(begin) != 0 {
				t.Errorf("%s: the origin saw %q, the client %v, after %v", path, body, resp.Header, time.Since(begin))
			}
			if h := <-f.seen; h.Get(asOfField) != "" {
				t.Errorf("%s: the origin saw %v", path, h)
			}
		}
		if o := f.stored("a", "/through"); o == nil || o.asOf.seq != 3 {
			t.Errorf("stored %+v", o)
		}
		// At the peers' door: without TLS, without a certificate, with another fleet's.
		stranger := &fleet{t: t, caKey: newKey(t)}
		self := &x509.Certificate{IsCA: true, BasicConstraintsValid: true}
		stranger.ca = certificate(t, self, self, stranger.caKey, stranger.caKey)
		other := stranger.peerTLS("a")
		other.InsecureSkipVerify = true
		for name, config := range map[string]*tls.Config{"no TLS": nil, "no certificate": {InsecureSkipVerify: true}, "another fleet": other} {
			c, err := f.network.DialContext(t.Context(), "tcp", peerAddr(1))
			if err != nil {
				t.Fatal(err)
			}
			if config != nil {
				c = tls.Client(c, config)
			}
			io.WriteString(c, "GET /through HTTP/1.1\r\nHost: shop.test\r\n"+appliedField+": 0\r\n\r\n")
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if b, _ := io.ReadAll(c); strings.Contains(string(b), "HTTP/1.1 200") {
				t.Errorf("%s: answered %q", name, b)
			}
			c.Close()
		}
	})
}

// http-checklist 56: whatever edges think of each other, a request takes one
// step; and one that has been here is refused.
func TestTiersDoNotLoop(t *testing.T) {
	tiered(t, []string{"a", "b"}, []string{"a", "b"}, func(t *testing.T, f *fleet) {
		// Each takes the other for the home of every key.
		for _, name := range []string{"a", "b"} {
			s, _ := f.edges[name].snap.Load().sites.find("shop.test")
			var others []Peer
			for _, p := range s.Shields {
				if p.Transport != nil {
					others = append(others, p)
				}
			}
			s.Shields = others
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if status, body := f.askNow(i%2, "/x"); status != 200 || body == "" {
					t.Errorf("%d %q", status, body)
				}
			})
		}
		wg.Wait()
		if n := f.hits.Load(); n > 2 {
			t.Errorf("%d requests to the origin", n)
		}
		if resp, _ := f.ask(0, "/x", "Cdn-Loop", "perigee-a"); resp.StatusCode != http.StatusLoopDetected {
			t.Errorf("a loop: %d", resp.StatusCode)
		}
	})
}

// Slices and conditions go through a shield like anything else.
func TestSlicesThroughShield(t *testing.T) {
	file := newLargeFile(3<<20 + 5)
	tiered(t, []string{"a", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		f.answer = file.ServeHTTP
		for _, e := range f.edges {
			e.SetApplied(3, testLog)
		}
		for i := range 2 {
			for _, start := range []int64{0, 2 << 20, 3 << 20} {
				resp, body := f.ask(i, "/film", "Range", fmt.Sprintf("bytes=%d-%d", start, start+4))
				if resp.StatusCode != 206 || body != string(file.octetsAt(start, 5)) {
					t.Errorf("edge %d, %d: %d %q", i, start, resp.StatusCode, body)
				}
			}
		}
		if n := f.hits.Load(); n != 3 {
			t.Errorf("%d requests to the origin: %s", n, file.requests())
		}
		time.Sleep(2 * time.Minute)
		f.hits.Store(0)
		for i := range 2 {
			if resp, body := f.ask(i, "/film", "Range", "bytes=0-4"); resp.StatusCode != 206 || body != string(file.octetsAt(0, 5)) {
				t.Errorf("edge %d, stale: %d %q", i, resp.StatusCode, body)
			}
		}
		if n := f.hits.Load(); n != 1 {
			t.Errorf("to freshen it, %d requests to the origin: %s", n, file.requests())
		}
	})
}

// RFC 9111 §4.4: what changes a resource goes through its shield, which forgets it too.
func TestInvalidationThroughShield(t *testing.T) {
	tiered(t, []string{"a", "shield"}, []string{"shield"}, func(t *testing.T, f *fleet) {
		f.answer = func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Cache-Control", "max-age=60")
			fmt.Fprint(w, f.hits.Load(), string(b))
		}
		s, _ := f.edges["a"].snap.Load().sites.find("shop.test")
		s.Shields[0].Transport = &swapped{RoundTripper: s.Shields[0].Transport}
		f.ask(0, "/x")
		for n, down := range []bool{false, true} {
			gone := s.Shields[0].Transport.(*swapped)
			if down {
				gone.RoundTripper = unreached{}
			}
			c, err := f.network.DialFrom(t.Context(), clientAddr, netip.MustParseAddrPort("192.0.2.1:80"))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "POST /x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
			if b, _ := io.ReadAll(c); !strings.Contains(string(b), "body") {
				t.Errorf("POST: %q", b)
			}
			if f.stored("a", "/x") != nil || f.stored("shield", "/x") != nil {
				t.Errorf("%d: it is still stored", n)
			}
			if f.hits.Load() != int64(n+2) {
				t.Errorf("%d requests to the origin", f.hits.Load())
			}
		}
	})
}

// unreached is a shield that cannot be connected to.
type unreached struct{}

func (unreached) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, &origin.UpstreamError{Upstream: "shield", Phase: origin.PhaseConnect, Err: errors.New("refused")}
}
