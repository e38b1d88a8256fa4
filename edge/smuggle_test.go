package edge

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is an origin that writes down every octet it gets, and reads
// requests as lax origins do: by Content-Length whenever there is one (byCL),
// or by anything that looks like Transfer-Encoding: chunked.
type recorder struct {
	byCL bool
	mu   sync.Mutex
	got  []string // by connection
}

func (o *recorder) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		i := len(o.got)
		o.got = append(o.got, "")
		o.mu.Unlock()
		go func() {
			defer c.Close()
			answered := 0
			for buf := make([]byte, 32<<10); ; {
				n, err := c.Read(buf)
				o.mu.Lock()
				o.got[i] += string(buf[:n])
				requests, _ := laxly(o.got[i], o.byCL)
				o.mu.Unlock()
				for ; answered < len(requests); answered++ {
					answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
					if strings.HasPrefix(requests[answered].line, "HEAD ") {
						answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
					}
					io.WriteString(c, answer)
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

// laxRequest is a request as a lax origin reads it.
type laxRequest struct {
	line     string
	framings int // fields that frame its body, or look like it
	body     string
}

// laxly cuts octets into requests; rest is what is not one yet.
func laxly(s string, byCL bool) (requests []laxRequest, rest string) {
	for {
		s = strings.TrimLeft(s, "\r\n")
		end := 0
		var r laxRequest
		length, isChunked := 0, false
		for n := 0; ; n++ {
			i := strings.IndexByte(s[end:], '\n')
			if i < 0 {
				return requests, s
			}
			line := strings.TrimSuffix(s[end:end+i], "\r")
			if end += i + 1; line == "" {
				break
			}
			if n == 0 {
				r.line = line
				continue
			}
			name, v, _ := strings.Cut(line, ":")
			name = strings.ReplaceAll(strings.ToLower(strings.Trim(name, " \t\r\x00\x0b")), "_", "-")
			switch v = strings.ToLower(strings.Trim(v, " \t\r\x0b\x00")); name {
			case "content-length":
				r.framings++
				length, _ = strconv.Atoi(v)
			case "transfer-encoding":
				r.framings++
				isChunked = strings.Contains(v, "chunked")
			}
		}
		if byCL && length > 0 {
			isChunked = false
		}
		used, ok := length, len(s)-end >= length
		if isChunked {
			r.body, used, ok = dechunk(s[end:])
		} else if ok {
			r.body = s[end : end+length]
		}
		if !ok {
			return requests, s
		}
		requests, s = append(requests, r), s[end+used:]
		if s == "" {
			return requests, ""
		}
	}
}

// dechunk reads a body in chunks as lax origins do.
func dechunk(s string) (body string, used int, ok bool) {
	line := func() (string, bool) {
		i := strings.IndexByte(s[used:], '\n')
		if i < 0 {
			return "", false
		}
		l := strings.TrimSuffix(s[used:used+i], "\r")
		used += i + 1
		return l, true
	}
	for {
		l, ok := line()
		if !ok {
			return "", 0, false
		}
		l, _, _ = strings.Cut(l, ";")
		n, _ := strconv.ParseInt(strings.TrimSpace(l), 16, 32)
		if n == 0 {
			for {
				if l, ok = line(); !ok || l == "" {
					return body, used, ok
				}
			}
		}
		if len(s) < used+int(n)+2 {
			return "", 0, false
		}
		body += s[used : used+int(n)]
		used += int(n) + 2
	}
}

// minFramingCases is what the corpus must hold at least.
const minFramingCases = 200

// TestSmuggling is the differential test: for each case the edge stands before
// an origin that records octets, one that frames by Content-Length and one that
// frames by Transfer-Encoding. The case is the first request of its connection
// (our own loop reads it), or comes after one that was handed over (net/http
// reads it, behind guard). Exactly one request with one framing goes out, on
// which both origins agree; or the client gets an error and the connection
// ends, and no origin has seen a whole request.
func TestSmuggling(t *testing.T) {
	const first = "POST /first HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi"
	type row struct{ cases, passed, refused int }
	table := map[string]*row{}
	names := map[string]bool{}
	ran := 0
	for _, c := range framingCases {
		name := c.group + ": " + c.name
		if names[name] {
			t.Errorf("two cases are called %s", name)
		}
		names[name] = true
		r := table[c.group]
		if r == nil {
			r = &row{}
			table[c.group] = r
		}
		r.cases++
		for _, byCL := range []bool{true, false} {
			for _, before := range []string{"", first} {
				ran++
				if strings.Contains(c.want, " ") {
					r.passed++
				} else {
					r.refused++
				}
				why := ""
				synctest.Test(t, func(t *testing.T) { why = smuggle(t, before, c, byCL) })
				if why != "" {
					t.Errorf("%s (origin by length: %v, after another request: %v): %s", name, byCL, before != "", why)
				}
			}
		}
	}
	if len(names) < minFramingCases || ran != 4*len(names) {
		t.Errorf("%d cases, %d runs: the corpus has shrunk", len(names), ran)
	}
	for _, group := range slices.Sorted(maps.Keys(table)) {
		r := table[group]
		t.Logf("%-26s %3d cases, %4d runs: %4d went out as one request, %4d refused and closed", group, r.cases, 4*r.cases, r.passed, r.refused)
	}
	t.Logf("%d cases × 2 origins × 2 places = %d runs", len(names), ran)
}

// smuggle plays one case and says what is wrong.
func smuggle(t *testing.T, before string, c framingCase, byCL bool) string {
	w := newWorld(t, true, nil)
	defer w.stop()
	rec := &recorder{byCL: byCL}
	ln, err := w.network.Listen("tcp", "192.0.2.9:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go rec.serve(ln)
	pool := poolTo(t, w.network, "192.0.2.9:80")
	defer pool.Close()
	if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}); err != nil {
		t.Fatal(err)
	}
	const after = "GET /after HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
	got, closed := w.rawUntilClosed(t, before+c.send+after)
	synctest.Wait()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return judgeFraming(c, before != "", got, closed, rec.got)
}

var statusLine = regexp.MustCompile(`HTTP/1\.1 \d{3} `)

// judgeFraming compares what the client and the origin saw with what c wants.
func judgeFraming(c framingCase, before bool, got string, closed bool, conns []string) string {
	var want, seen []string
	if before {
		want = append(want, "POST /first HTTP/1.1")
		_, rest, ok := strings.Cut(got, "\r\n\r\nok")
		if !ok {
			return fmt.Sprintf("the request before it got %q", got)
		}
		got = rest
	}
	forwarded := strings.Contains(c.want, " ")
	if forwarded {
		want = append(want, c.want, "GET /after HTTP/1.1")
	}
	for _, raw := range conns {
		a, restA := laxly(raw, true)
		b, restB := laxly(raw, false)
		if !slices.Equal(a, b) || restA != restB || forwarded && restA != "" {
			return fmt.Sprintf("origins disagree on %q", raw)
		}
		for _, r := range a {
			seen = append(seen, r.line)
			if r.framings > 1 {
				return fmt.Sprintf("two framings in %q", raw)
			}
		}
	}
	slices.Sort(seen) // which connection each went by depends on when the last one was free again
	slices.Sort(want)
	if !slices.Equal(seen, want) {
		return fmt.Sprintf("the origin saw %q, want %q (the client %.200q)", seen, want, got)
	}
	if !closed {
		return fmt.Sprintf("the connection stays open after %.200q", got)
	}
	if forwarded {
		if strings.Count(got, "HTTP/1.1 200 ") != 2 {
			return fmt.Sprintf("the client saw %q", got)
		}
		return ""
	}
	if line := firstLine(got); !strings.HasPrefix(line, "HTTP/1.1 "+c.want+" ") || len(statusLine.FindAllString(got, -1)) != 1 {
		return fmt.Sprintf("answered %.300q, want %s alone", got, c.want)
	}
	return ""
}

// rawUntilClosed sends bytes as they are, and returns what came back until the
// edge closed the connection, or was silent for a minute.
func (w *world) rawUntilClosed(t testing.TB, send string) (got string, closed bool) {
	t.Helper()
	c, err := w.network.DialFrom(context.Background(), clientAddr, edgeAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, send) // the edge may close before it has read all
	c.SetReadDeadline(time.Now().Add(time.Minute))
	b, err := io.ReadAll(c)
	return string(b), err == nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return line
}
