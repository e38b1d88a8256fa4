package origin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBalance(t *testing.T) {
	for _, test := range []struct {
		balance Balance
		weights []int
		want    string
	}{
		{RoundRobin, nil, "abcabcabc"},
		{Weighted, []int{5, 1, 1}, "aabacaaaabacaa"},
		{Weighted, []int{1, 0, 1}, "acacac"},
		{LeastLoaded, nil, "abcabc"}, // all idle: turns
		{ActivePassive, nil, "aaaa"},
	} {
		bubble(t, func(t *testing.T, f *farm) {
			p := newPool(t, f, PoolConfig{Balance: test.balance, Weights: test.weights})
			if got := sequence(t, p, len(test.want)); got != test.want {
				t.Errorf("%s %v: %s, want %s", test.balance, test.weights, got, test.want)
			}
		})
	}
}

func TestBalanceRandom(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		p := newPool(t, f, PoolConfig{Balance: Random, Seed: 7})
		first := sequence(t, p, 300)
		for _, name := range []string{"a", "b", "c"} {
			// binomial(300, 1/3): mean 100, σ 8.2; 4σ
			if n := strings.Count(first, name); n < 67 || n > 133 {
				t.Errorf("%s was chosen %d times of 300", name, n)
			}
		}
		if again := sequence(t, newPool(t, f, PoolConfig{Balance: Random, Seed: 7}), 300); again != first {
			t.Error("the same seed gave another sequence")
		}
	})
}

// Requests that hang on one upstream steer others away from it.
func TestBalanceByLoad(t *testing.T) {
	for _, balance := range []Balance{LeastLoaded, Random} {
		bubble(t, func(t *testing.T, f *farm) {
			p := newPool(t, f, PoolConfig{Balance: balance, Origins: []string{"http://a", "http://b"}})
			f.set("a:80", thenHangs(""))
			ctx, cancel := context.WithCancel(t.Context())
			for range 20 {
				go func() {
					req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/", nil)
					if resp, err := p.RoundTrip(req); err == nil {
						resp.Body.Close()
					}
				}()
			}
			synctest.Wait()
			if got := sequence(t, p, 20); got != strings.Repeat("b", 20) {
				t.Errorf("%s: %s", balance, got)
			}
			cancel()
			synctest.Wait()
			for _, s := range p.Status() {
				if s.InFlight != 0 || s.Failed != 0 {
					t.Errorf("%s: after the callers left: %+v", balance, s)
				}
			}
		})
	}
}

// Path and query go through byte for byte, behind the origin's own path; Host
// is the client's, or the configured one; nothing is added.
func TestOutgoingRequest(t *testing.T) {
	for _, test := range []struct{ origin, host, target, want string }{
		{"http://a", "", "/x?q=1", "/x?q=1 www.example.com"},
		{"http://a/", "", "/%7Ex/%2F/a+b?%zz;a=b&&", "/%7Ex/%2F/a+b?%zz;a=b&& www.example.com"},
		{"http://a/site/", "", "/x%2fy?", "/site/x%2fy? www.example.com"},
		{"http://a/s%20t", "origin.example.net", "//x", "/s%20t//x origin.example.net"},
		{"http://a", "", "//evil/x", "//evil/x www.example.com"},
	} {
		bubble(t, func(t *testing.T, f *farm) {
			var got string
			f.set("a:80", func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					t.Error(err)
					return
				}
				got = req.RequestURI + " " + req.Host
				if len(req.Header) != 0 {
					t.Errorf("fields were added: %v", req.Header)
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			})
			p := newPool(t, f, PoolConfig{Origins: []string{test.origin}, HostHeader: test.host})
			in := "GET " + test.target + " HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(in)))
			if err != nil {
				t.Fatal(err)
			}
			before := *req.URL
			resp, err := p.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got != test.want {
				t.Errorf("%s + %s: origin saw %q, want %q", test.origin, test.target, got, test.want)
			}
			if *req.URL != before || req.Host != "www.example.com" {
				t.Error("the caller's request was changed")
			}
		})
	}
}

// F15, F16, F17: each way to fail, its phase, and how long it may take.
func TestFailures(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	for _, test := range []struct {
		name    string
		behave  func(net.Conn)
		phase   Phase
		timeout bool
		within  time.Duration
		why     string
	}{
		{"refuses", nil, PhaseConnect, false, 0, "refused"},
		{"closes before the head", thenCloses(""), PhaseHead, false, 0, "EOF"},
		{"hangs before the head", thenHangs(""), PhaseHead, true, DefaultHeaderTimeout, "no response head"},
		{"hangs in the head", thenHangs("HTTP/1.1 200 OK\r\nX: "), PhaseHead, true, DefaultHeaderTimeout, "no response head"},
		{"does not read", func(c net.Conn) { time.Sleep(2 * DefaultBetweenTimeout) }, PhaseSend, true, DefaultBetweenTimeout, "timeout"},
		{"closes in the head", thenCloses("HTTP/1.1 200 OK\r\nX: "), PhaseHead, false, 0, "EOF"},
		{"garbage", thenCloses("220 smtp ready\r\n"), PhaseHead, false, 0, "malformed"},
		{"huge head", thenCloses("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxResponseHead)), PhaseHead, false, 0, "more than 65536 bytes"},
		{"two lengths", thenCloses("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), PhaseHead, false, 0, "Content-Length"},
		{"status 099", answers("HTTP/1.1 099 Odd\r\n\r\n"), PhaseHead, false, 0, "status 099"},
		{"status 999", answers("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), PhaseHead, false, 0, "status 999"},
		{"switches protocols", answers("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), PhaseHead, false, 0, "status 101"},
		{"half a body", thenCloses(head + "12345"), PhaseBody, false, 0, "unexpected EOF"},
		{"hangs in the body", thenHangs(head + "12345"), PhaseBody, true, DefaultBetweenTimeout, "no byte of the body"},
		{"chunked without end", thenCloses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), PhaseBody, false, 0, "EOF"},
		{"bad chunk", thenCloses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), PhaseBody, false, 0, "chunk"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				f.set("a:80", test.behave)
				p := newPool(t, f, PoolConfig{Origins: []string{"http://a"}})
				begin := time.Now()
				_, err := send(p, http.MethodGet, "")
				e, ok := errors.AsType[*UpstreamError](err)
				if !ok {
					t.Fatalf("error %v", err)
				}
				if e.Upstream != "http://a" || e.Phase != test.phase || e.Timeout() != test.timeout || !strings.Contains(e.Error(), test.why) {
					t.Errorf("%s: phase %s, timeout %v: %v", e.Upstream, e.Phase, e.Timeout(), e)
				}
				if d := time.Since(begin); d != test.within {
					t.Errorf("took %s, want %s", d, test.within)
				}
				if s := p.Status()[0]; s.InFlight != 0 || s.Failed != 1 || s.LastWhy == "" {
					t.Errorf("status %+v", s)
				}
				time.Sleep(2 * DefaultBetweenTimeout) // let the origin that does not read end
			})
		})
	}
}

// A dial that never ends is cut.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPool(PoolConfig{Origins: []string{"http://a"}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		begin := time.Now()
		_, err = send(p, http.MethodGet, "")
		e, ok := errors.AsType[*UpstreamError](err)
		if !ok || e.Phase != PhaseConnect || !e.Timeout() || time.Since(begin) != DefaultConnectTimeout {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

// A slow body that keeps coming is not cut, however long it takes (F16).
func TestSlowBodyIsNotCut(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
			for range 30 {
				time.Sleep(DefaultBetweenTimeout - time.Second)
				_, _ = io.WriteString(c, "x")
			}
		})
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a"}})
		if got := get(t, p); got != strings.Repeat("x", 30) {
			t.Errorf("body %q", got)
		}
	})
}

func TestRetries(t *testing.T) {
	half := thenCloses("HTTP/1.1 200 OK\r\nX") // bytes of a response were seen
	for _, test := range []struct {
		name, method, body string
		a                  func(net.Conn)
		want               string // body, or "" for an error
	}{
		{"refused", http.MethodGet, "", nil, "b"},
		{"closed without a byte", http.MethodGet, "", func(net.Conn) {}, "b"},
		{"HEAD", http.MethodHead, "", nil, "ok"},
		{"a body that can be had again", http.MethodPut, "body", thenCloses(""), "b"},
		{"bytes were seen", http.MethodGet, "", half, ""},
		{"not idempotent", http.MethodPost, "body", nil, ""},
		{"not idempotent, no body", http.MethodPost, "", nil, ""},
		{"a method we do not know", "LOCK", "", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *farm) {
				f.set("a:80", test.a)
				if test.method == http.MethodHead {
					f.set("b:80", answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
				}
				p := newPool(t, f, PoolConfig{Origins: []string{"http://a", "http://b"}, Balance: ActivePassive})
				got, err := send(p, test.method, test.body)
				if test.method == http.MethodHead && err == nil {
					got = "ok"
				}
				if got != test.want || (err == nil) != (test.want != "") {
					t.Errorf("got %q, %v", got, err)
				}
				wantB := uint64(0)
				if test.want != "" {
					wantB = 1
				}
				if s := p.Status(); s[0].Requests != 1 || s[1].Requests != wantB {
					t.Errorf("a had %d requests, b %d", s[0].Requests, s[1].Requests)
				}
			})
		})
	}
}

// A body that cannot be had again is sent once.
func TestNoRetryOfOneTimeBody(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", nil)
		p := newPool(t, f, PoolConfig{Balance: ActivePassive})
		req, err := http.NewRequest(http.MethodPut, "http://x/", io.LimitReader(strings.NewReader("body"), 4))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.RoundTrip(req); err == nil {
			t.Error("no error")
		}
		if s := p.Status(); s[1].Requests+s[2].Requests != 0 {
			t.Error("it was sent twice")
		}
	})
}

func TestTriesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		var origins []string
		for i := range 10 {
			origins = append(origins, fmt.Sprintf("http://down%d", i))
		}
		p := newPool(t, f, PoolConfig{Origins: origins})
		_, err := send(p, http.MethodGet, "")
		if e, ok := errors.AsType[*UpstreamError](err); !ok || e.Tries != maxTries {
			t.Errorf("error %v after %+v", err, e)
		}
	})
}

// Closing a body early, and leaving while the head is awaited, free the
// upstream and blame nobody.
func TestCallerLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", thenHangs("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12"))
		p := newPool(t, f, PoolConfig{Origins: []string{"http://a"}})
		req, err := http.NewRequest(http.MethodGet, "http://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.set("a:80", thenHangs(""))
		if _, err := p.RoundTrip(req.WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if s := p.Status()[0]; s.InFlight != 0 || s.Failed != 0 || s.Circuit != "closed" {
			t.Errorf("%+v", s)
		}
	})
}

func TestRedirectIsNotFollowed(t *testing.T) {
	bubble(t, func(t *testing.T, f *farm) {
		f.set("a:80", answers("HTTP/1.1 302 Found\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n"))
		p := newPool(t, f, PoolConfig{Balance: ActivePassive})
		req, err := http.NewRequest(http.MethodGet, "http://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusFound || f.dialled("b:80") != 0 {
			t.Errorf("status %d, %d dials of b", resp.StatusCode, f.dialled("b:80"))
		}
	})
}

func TestPoolConfigRefused(t *testing.T) {
	good := []string{"http://a", "http://b"}
	for _, c := range []PoolConfig{
		{},
		{Origins: slices.Repeat([]string{"http://a"}, 2)},
		{Origins: make([]string, MaxOrigins+1)},
		{Origins: []string{"ftp://a"}}, {Origins: []string{"a:80"}}, {Origins: []string{"http://"}},
		{Origins: []string{"http://u:p@a"}}, {Origins: []string{"http://a?x"}}, {Origins: []string{"http://a#x"}},
		{Origins: []string{"http://169.254.169.254"}}, {Origins: []string{"http://[fd00:ec2::254]"}}, {Origins: []string{"http://[::ffff:169.254.169.254]"}},
		{Origins: good, Weights: []int{1}}, {Origins: good, Weights: []int{0, 0}}, {Origins: good, Weights: []int{1, -1}},
		{Origins: good, Balance: 99}, {Origins: good, Check: "healthz"}, {Origins: good, HeaderTimeout: -1},
	} {
		if p, err := NewPool(c); err == nil {
			p.Close()
			t.Errorf("accepted: %+v", c)
		}
	}
	for _, name := range balanceNames {
		if b, err := ParseBalance(name); err != nil || b.String() != name {
			t.Errorf("ParseBalance(%q) = %v, %v", name, b, err)
		}
	}
	if _, err := ParseBalance("fastest"); err == nil {
		t.Error("an unknown balance was accepted")
	}
}
