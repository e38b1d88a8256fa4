package main

import (
	"net/http"
	"strings"
	"testing"

	"perigee.example/edge"
	"perigee.example/internal/control"
)

// TestEdgesTakeWhatControlPurges: a purge that control puts on the log and an
// edge cannot read makes that edge revalidate everything. So what the one takes,
// the other must, and both mean the same response.
func TestEdgesTakeWhatControlPurges(t *testing.T) {
	e, err := edge.New(edge.Config{Sites: []edge.Site{{Name: "a", Hosts: []string{"a.test"}, Origin: http.DefaultTransport}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	taken := 0
	for _, host := range []string{"a.test", "A.TEST:80", "a.test:8080", "a.test.", "a..test", "a_b.test", "a!.test", "ü.test", "[::1]", "[fe80::1%25eth0]", "1.2.3.4", strings.Repeat("a", 64) + ".test", "a.test:0", "a.test:080", "a.test:65536"} {
		for _, path := range []string{"", "/", "//", "/a/", "/a//b", "/%2F", "/%2e%2e/", "/a/..", "/.a", "/a%00", "/a|b", "/a\\b", "/%zz", "/ü", "/ü!%2f(a)", "/a;b", "/..;a/", "/a%5c..%5cb", "/" + strings.Repeat("a/", 40), "/" + strings.Repeat("ü", 3000)} {
			for _, query := range []string{"", "?", "?a=/../&b", "?ü", "?%zz", "?a#b"} {
				given := "http://" + host + path + query
				if u, _, err := control.NormalURL(given); err == nil {
					taken++
					if err := e.Purge(edge.Purge{Seq: 1, URL: u}); err != nil {
						t.Errorf("%.200q: %v", given, err)
					}
				}
				if u, _, err := control.NormalPrefix(given); err == nil {
					taken++
					if again, _, err := control.NormalPrefix(u); again != u || err != nil {
						t.Errorf("%.200q becomes %.200q, then %.200q, %v", given, u, again, err)
					}
					if err := e.Purge(edge.Purge{Seq: 1, Prefix: u}); err != nil {
						t.Errorf("prefix %.200q: %v", given, err)
					}
				}
			}
		}
	}
	if taken < 400 {
		t.Errorf("control took %d only", taken)
	}
}
