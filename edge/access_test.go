package edge

import (
	"bytes"
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// TestPlainText: who looks at eight octets at a time sees what who looks at each
// would, whatever octet stands where; and a value of the log is written the same
// in the short way and in the long one.
func TestPlainText(t *testing.T) {
	for length := 1; length < 26; length++ {
		for at := range length {
			for c := range 256 {
				v := strings.Repeat("a", at) + string([]byte{byte(c)}) + strings.Repeat("~", length-at-1)
				if got := isPlain(v); got != plainJSON[c] {
					t.Fatalf("%q is plain: %v", v, got)
				}
				if got := isVisible(v); got != (c > ' ' && c < 0x7f) {
					t.Fatalf("%q is visible: %v", v, got)
				}
				if got, want := appendText(nil, `,"x":"`, v), appendJSONString([]byte(`,"x":`), v); !bytes.Equal(got, want) {
					t.Fatalf("%q is logged as %s, not %s", v, got, want)
				}
			}
		}
	}
	if long := strings.Repeat("a", maxLogField+1); len(appendText(nil, `,"x":"`, long)) != maxLogField+len(`,"x":""`) {
		t.Error("a long value is not cut")
	}
}

// BenchmarkLine writes down a hit, as the loop does.
func BenchmarkLine(b *testing.B) {
	r := AccessRecord{Time: time.Unix(1_795_000_000, 123_456_789), Client: "192.0.2.17", Site: "bench", Method: "GET", Host: "bench.test", Path: "/o/0/1024/0000000000",
		Status: 200, Bytes: 1024, Duration: 23456 * time.Nanosecond, Proto: "HTTP/1.1", Cache: "hit", CacheStatus: "fra1; hit; ttl=86321",
		UserAgent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"}
	for _, agent := range []string{"", r.UserAgent} {
		r.UserAgent = agent
		name := "browser"
		if agent == "" {
			name = "bare"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var line []byte
			for b.Loop() {
				var none lastLine
				line = r.appendJSON(line[:0], &none)
			}
		})
	}
}

// TestLinesOfABatch: what a line has in common with the one before it is copied, and
// each is what it would be alone.
func TestLinesOfABatch(t *testing.T) {
	first := AccessRecord{Time: time.Unix(1_795_000_000, 123_456_789), Client: "192.0.2.17", Site: "s", Method: "GET", Host: "s.test", Path: "/a", Status: 200, Cache: "hit"}
	records := []AccessRecord{first, first}
	for _, change := range []func(r *AccessRecord){
		func(r *AccessRecord) { r.Path = "/b" }, func(r *AccessRecord) { r.Path = "" }, func(r *AccessRecord) { r.Path = "/\"" },
		func(r *AccessRecord) { r.Time = r.Time.Add(1) }, func(r *AccessRecord) { r.Client = "" }, func(r *AccessRecord) { r.Site = "t" },
		func(r *AccessRecord) { r.Method = "HEAD" }, func(r *AccessRecord) { r.Host = "t.test" }, func(r *AccessRecord) { r.Status = 304 },
		func(r *AccessRecord) { r.Bytes = 1 }, func(r *AccessRecord) { r.Duration = time.Second }, func(r *AccessRecord) { r.Cache = "miss" },
		func(r *AccessRecord) { r.Release = "r" }, func(r *AccessRecord) { r.CacheStatus = "c" }, func(r *AccessRecord) { r.Referer = "f" },
		func(r *AccessRecord) { r.UserAgent = "u" }, func(r *AccessRecord) { r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13} },
	} {
		r := records[len(records)-1]
		change(&r)
		records = append(records, r, r)
	}
	for _, l := range []*LineLog{{}, {combined: true}} {
		var lines, alone []byte
		var last lastLine
		for i := range records {
			var none lastLine
			lines, alone = l.form(lines, &records[i], &last), l.form(alone, &records[i], &none)
		}
		if !bytes.Equal(lines, alone) {
			t.Errorf("\n%s\nis not\n%s", lines, alone)
		}
	}
}
