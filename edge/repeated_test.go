package edge

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// sameHead says in what a head that was compared with the one before differs from one
// that was read without it.
func sameHead(like, alone *head, n, m int, err, want error) string {
	if fmt.Sprint(err) != fmt.Sprint(want) || n != m {
		return fmt.Sprintf("%d octets and %v, alone %d and %v", n, err, m, want)
	}
	if err != nil {
		return ""
	}
	say := func(h *head) string {
		var b strings.Builder
		fmt.Fprintf(&b, "%q %q HTTP/1.%d host %q hosts %d length %d chunked %v conditional %v unusual %v plain %v end %d",
			h.method, h.target, h.minor, h.host, h.hosts, h.contentLength, h.chunked, h.conditional, h.unusual, h.plain(), h.end)
		for i := range h.lines {
			v, ok := h.combined(h.name(i))
			fmt.Fprintf(&b, "\n%q: %q (%q %v)", h.name(i), h.value(i), v, ok)
		}
		for _, name := range []string{"Authorization", "Range", "Host", "X"} {
			v, ok := h.combined(name)
			fmt.Fprintf(&b, "\n%s %q %v", name, v, ok)
		}
		for _, tls := range []bool{false, true} {
			for range 2 { // the second time what is known of the host is used
				var t target
				err := h.readTarget(&t, tls)
				if err != nil {
					t = target{}
				}
				fmt.Fprintf(&b, "\n%+v %v", t, err)
			}
		}
		return b.String()
	}
	if a, b := say(like), say(alone); a != b {
		return a + "\n\nalone: " + b
	}
	return ""
}

// checkRepeated reads second after first on a connection, and alone.
func checkRepeated(t *testing.T, first, second string) (repeats bool) {
	t.Helper()
	var like, alone head
	like.same = new(repeated)
	if _, err := like.parse([]byte(first)); err == nil {
		like.same.keep(&like)
		like.parse([]byte(first))
		var tg target
		like.readTarget(&tg, false)
		like.readTarget(&tg, false)
	}
	n, err := like.parse([]byte(second))
	m, want := alone.parse([]byte(second))
	repeats = like.repeats
	if alone.repeats {
		t.Fatal("a head that is compared with none repeats one")
	}
	if wrong := sameHead(&like, &alone, n, m, err, want); wrong != "" {
		t.Fatalf("%q after %q: %s", second, first, wrong)
	}
	return repeats
}

// FuzzRepeated: a head says the same whatever came before it on its connection.
func FuzzRepeated(f *testing.F) {
	for _, c := range framingCases {
		f.Add([]byte(c.send), []byte(c.send))
	}
	page := strings.Replace(chromiumPage, "%d", "1", 1)
	f.Add([]byte(page), []byte("HEAD http://s.test/b?c HTTP/1.1\r\nHost: S.test.:80\r\nx: a\r\nx: b \r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\nHost: a\r\n\r\nGET"), []byte("GET /a|b HTTP/1.1\r\nHost: s.test:443\r\nRange: bytes=0-\r\n\r\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		line := func(s []byte) (string, string) {
			i := strings.Index(string(s), "\n") + 1
			return string(s[:i]), string(s[i:])
		}
		checkRepeated(t, string(a), string(b))
		first, _ := line(b)
		_, rest := line(a)
		checkRepeated(t, string(a), first+rest)
		checkRepeated(t, string(a), first+rest+string(b))
		checkRepeated(t, string(a), first+strings.TrimSuffix(rest, "\n")+"X: y\r\n\r\n")
	})
}

// TestRepeats: what counts as the same fields, and what does not.
func TestRepeats(t *testing.T) {
	const fields = "Host: S.test:8080\r\nCookie: a\r\n\r\n"
	for _, c := range []struct {
		first, second string
		want          bool
	}{
		{"GET /a HTTP/1.1\r\n" + fields, "GET /b?c HTTP/1.1\r\n" + fields, true},
		{"GET /a HTTP/1.1\r\n" + fields, "HEAD /longer HTTP/1.1\r\n" + fields + "GET", true},
		{"POST /a HTTP/1.1\r\nContent-Length: 3\r\n" + fields, "POST /b HTTP/1.1\r\nContent-Length: 3\r\n" + fields + "abc", true},
		{"GET /a HTTP/1.1\r\n" + fields, "GET /b HTTP/1.1\r\nX: y\r\n" + fields, false},
		{"GET /a HTTP/1.1\r\n" + fields, "GET /b HTTP/1.1\r\n" + strings.Replace(fields, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\n", 1), false},
		{"GET /a HTTP/1.1\r\n" + fields, "GET /b HTTP/1.0\r\n" + fields, false},
		{"GET /a HTTP/1.0\r\n" + fields, "GET /b HTTP/1.1\r\n" + fields, false},
		{"GET /a HTTP/1.1\r\n" + fields, "GET /b HTTP/1.1\r\n" + fields[:len(fields)-1], false},
		{"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false},
		{"GET /a HTTP/1.1\r\nX: " + strings.Repeat("y", maxRepeatedBytes) + "\r\n" + fields, "GET /a HTTP/1.1\r\nX: " + strings.Repeat("y", maxRepeatedBytes) + "\r\n" + fields, false},
	} {
		if got := checkRepeated(t, c.first, c.second); got != c.want {
			t.Errorf("%q after %q: %v", c.second, c.first, got)
		}
	}
}

// TestRepeatedRequests: on one connection, whose requests have the same fields or
// others, each gets its own answer: by the loop or by net/http, alone or many at once.
func TestRepeatedRequests(t *testing.T) {
	world := files{"/a": []byte("one"), "/b": []byte("another")}
	e, dial := serveLoopback(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		world.ServeHTTP(w, r)
	}))
	storeAt(t, e, "/a")
	storeAt(t, e, "/b")
	conn := dial()
	r := bufio.NewReader(conn)
	const fields = "Host: shop.test\r\nCookie: a=b\r\n\r\n"
	for i, send := range []string{
		"GET /a HTTP/1.1\r\n" + fields, "GET /b HTTP/1.1\r\n" + fields, "GET /a HTTP/1.1\r\n" + fields, "GET /a?x=1 HTTP/1.1\r\n" + fields,
		"GET /b HTTP/1.1\r\n" + fields + "GET /a HTTP/1.1\r\n" + fields + "GET /a HTTP/1.1\r\nRange: bytes=1-\r\n" + fields + "GET /a HTTP/1.1\r\n" + fields,
		"POST /b HTTP/1.1\r\nContent-Length: 2\r\n" + fields + "xy", "POST /b HTTP/1.1\r\nContent-Length: 2\r\n" + fields + "xy",
		"GET /b HTTP/1.1\r\n" + fields, "GET /b HTTP/1.1\r\nHost: other.test\r\n\r\n", "GET /b HTTP/1.1\r\nHost: other.test\r\n\r\n", "GET /b HTTP/1.1\r\n" + fields,
	} {
		io.WriteString(conn, send)
		for _, head := range strings.SplitAfter(strings.ReplaceAll(send, "xy", ""), "\r\n\r\n") {
			if head == "" {
				continue
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(i, err)
			}
			body, err := io.ReadAll(resp.Body)
			path, _, _ := strings.Cut(strings.Fields(head)[1], "?")
			want, status := string(world[path]), http.StatusOK
			switch {
			case strings.Contains(head, "other"):
				want, status = "", http.StatusMisdirectedRequest
			case strings.Contains(head, "Range"):
				want, status = want[1:], http.StatusPartialContent
			}
			if err != nil || resp.StatusCode != status || want != "" && string(body) != want {
				t.Fatalf("%d: %q: %d %q, %v", i, head, resp.StatusCode, body, err)
			}
		}
	}
}
