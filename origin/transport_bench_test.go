package origin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// BenchmarkRoundTrip is what a fetch costs on a kept connection over loopback,
// by the pool and, for the ratio, by net/http's Transport.
func BenchmarkRoundTrip(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if line, err := r.ReadSlice('\n'); err != nil {
						return
					} else if len(line) > 2 {
						continue
					}
					if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: text/plain\r\nEtag: \"x\"\r\nContent-Length: 5\r\n\r\nhello"); err != nil {
						return
					}
				}
			}()
		}
	}()
	pool, err := NewPool(PoolConfig{Origins: []string{"http://" + ln.Addr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	for name, rt := range map[string]http.RoundTripper{"pool": pool, "net-http": &http.Transport{DisableCompression: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			req, _ := http.NewRequest(http.MethodGet, "http://"+ln.Addr().String()+"/a", nil)
			for b.Loop() {
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
