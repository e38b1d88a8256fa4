package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"perigee.example/origin"
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

// BenchmarkMiss asks an edge on a socket of this machine for pages that nobody has
// asked for before, with the log on. The origin and the client, which the processor
// time has too, allocate nothing; the store is full.
func BenchmarkMiss(b *testing.B) {
	pool, err := origin.NewPool(origin.PoolConfig{Origins: []string{"http://" + answering(b, 16<<10)}})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	e, err := New(Config{MemoryBytes: 16 << 20, Access: NewJSONLog(io.Discard), Sites: []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
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
	r, n := bufio.NewReaderSize(conn, 256<<10), 0
	var ask []byte
	one := func() {
		n++
		ask = fmt.Appendf(ask[:0], "GET /%010d HTTP/1.1\r\nHost: shop.test\r\n\r\n", n)
		conn.Write(ask)
		for { // the head
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		r.Discard(16 << 10)
	}
	for range 2000 {
		one()
	}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		one()
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// answering is the address of an origin that gives whoever asks one body of size octets.
func answering(b *testing.B, size int) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/octet-stream\r\nCache-Control: max-age=86400\r\nETag: \"1-2\"\r\nContent-Length: %d\r\n\r\n%s",
		time.Now().UTC().Format(time.RFC1123), size, bytes.Repeat([]byte("x"), size))
	answer = bytes.Replace(answer, []byte(" UTC\r"), []byte(" GMT\r"), 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				room := make([]byte, 8<<10)
				for {
					if n, err := c.Read(room); err != nil || !bytes.HasSuffix(room[:n], []byte("\r\n\r\n")) {
						c.Close()
						return
					}
					c.Write(answer)
				}
			}()
		}
	}()
	return ln.Addr().String()
}
