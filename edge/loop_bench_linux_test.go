package edge

import (
	"bufio"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLoop asks an edge on a socket of this machine for what it has stored,
// with the log on, one batch of requests after the other. What it costs is the
// processor time of both, which other processes change less than they do the time.
func BenchmarkLoop(b *testing.B) {
	for _, c := range []struct {
		name        string
		size, depth int
	}{{"1KiB", 1 << 10, 1}, {"1KiBx16", 1 << 10, 16}, {"100KiB", 100 << 10, 1}, {"10MiB", 10 << 20, 1}} {
		b.Run(c.name, func(b *testing.B) {
			e, err := New(Config{Access: NewJSONLog(io.Discard), Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(files{"/a": make([]byte, c.size)})}}})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			storeAt(b, e, "/a")
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			go e.Serve(b.Context(), ln)
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			batch := strings.Repeat("GET /a HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: bench/1.0\r\n\r\n", c.depth)
			r := bufio.NewReaderSize(conn, 256<<10)
			b.SetBytes(int64(c.size * c.depth))
			before := processorTime(b)
			for b.Loop() {
				io.WriteString(conn, batch)
				for range c.depth {
					for { // the head
						line, err := r.ReadSlice('\n')
						if err != nil {
							b.Fatal(err)
						}
						if len(line) == 2 {
							break
						}
					}
					r.Discard(c.size)
				}
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
