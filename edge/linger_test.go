package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// RFC 9112 §9.6: after a connection's last answer only its own direction is ended at
// once. What the client still sends is read for a while: it must not be reset, which
// could take the answer from it.
func TestLastAnswerLingers(t *testing.T) {
	const host = "HTTP/1.1\r\nHost: shop.test\r\n"
	for name, test := range map[string]struct {
		ask    string
		status string
		drain  bool
	}{
		"hit":                       {"GET /stored " + host + "\r\n", "200", true},
		"miss":                      {"GET /a " + host + "\r\n", "200", true},
		"pipelined":                 {strings.Repeat("GET /stored "+host+"\r\n", 3), "200", true},
		"by net/http":               {"POST /a " + host + "Content-Length: 0\r\n\r\n", "200", true},
		"a body that nobody reads":  {"POST /a HTTP/1.1\r\nHost: unknown.test\r\nContent-Length: 1000000\r\n\r\nstart", "421", false},
		"a bad head":                {"GET /a\r\n\r\n", "400", false},
		"a bad head after net/http": {"POST /a " + host + "Content-Length: 0\r\n\r\nGET /a" + host + "Host: x\r\n\r\n", "400", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, true, nil)
				defer w.stop()
				for _, line := range []string{"GET /stored", "GET /a", "POST /a"} {
					w.say(line, answer{header: http.Header{"Cache-Control": {"max-age=60"}}, body: "hello"})
				}
				w.get("/stored")
				w.client.CloseIdleConnections()
				if test.drain {
					w.edge.Drain()
				}
				for _, leaves := range []bool{true, false} {
					c := dialEdge(t, w)
					start := time.Now()
					io.WriteString(c, test.ask)
					answer, err := io.ReadAll(c)
					if took := time.Since(start); err != nil || !strings.Contains(string(answer), "HTTP/1.1 "+test.status) || took > 0 {
						t.Errorf("%q, %v after %v", answer, err, took)
					}
					if _, err := io.WriteString(c, "more"); err != nil {
						t.Error("what it still sends is not taken:", err)
					}
					if leaves {
						c.Close()
					}
					time.Sleep(2 * lingerTimeout)
					synctest.Wait()
					if n := w.edge.stats.open.Load(); n != 0 {
						t.Errorf("%d connections after the client left, or was given its time", n)
					}
					c.Close()
				}
			})
		})
	}
}
