package edge

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
)

// tellAll has every client see all of Cache-Status.
func tellAll(c *Config) {
	l := DefaultLimits()
	l.Told = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	c.Limits = &l
}

// TestToldClients: all of Cache-Status is for the clients that are to see it, by
// either path, through a proxy for whom it asks alone; the key, whose query may
// hold secrets, is in no log.
func TestToldClients(t *testing.T) {
	const proxy, office = "198.51.100.7/32", "203.0.113.0/24" // clientAddr; somebody behind it
	for _, c := range []struct {
		name          string
		told, proxies []string
		field         string
		full          bool
	}{
		{"by default nobody", nil, nil, "", false},
		{"an operator", []string{proxy}, nil, "", true},
		{"everybody", []string{"0.0.0.0/0"}, nil, "", true},
		{"another", []string{office}, nil, "", false},
		{"who only says so", []string{office}, nil, "X-Forwarded-For: 203.0.113.9\r\n", false},
		{"an operator behind a proxy", []string{office}, []string{proxy}, "X-Forwarded-For: 203.0.113.9\r\n", true},
		{"a visitor behind a proxy that is listed", []string{proxy}, []string{proxy}, "X-Forwarded-For: 192.0.2.1\r\n", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log records
			w := newWorld(t, true, func(cfg *Config) {
				l := DefaultLimits()
				for _, p := range c.told {
					l.Told = append(l.Told, netip.MustParsePrefix(p))
				}
				for _, p := range c.proxies {
					l.Proxies = append(l.Proxies, netip.MustParsePrefix(p))
				}
				cfg.Limits, cfg.Access = &l, &log
			})
			defer w.stop()
			w.say("GET /a?token=hush", answer{header: http.Header{"Cache-Control": {"max-age=86400"}}, body: "a"})
			request := "GET /a?token=hush HTTP/1.1\r\nHost: shop.test\r\n" + c.field
			for _, ask := range []struct{ fields, want string }{
				{"\r\n", "; stored"}, // a miss: the general path
				{"\r\n", "; hit"},    // the loop
				{"Range: bytes=0-\r\n\r\n", "; hit"},
			} {
				got := w.send(t, request+ask.fields).Header.Get("Cache-Status")
				if !strings.Contains(got, ask.want) || strings.Contains(got, `; key="http://shop.test/a?token=hush"`) != c.full || strings.Contains(got, "key=") != c.full {
					t.Errorf("%s, %q: %s", c.name, ask.fields, got)
				}
			}
			if len(log) != 3 {
				t.Errorf("%s: %d records", c.name, len(log))
			}
			for _, r := range log {
				if strings.Contains(r.CacheStatus, "key=") || strings.Contains(r.CacheStatus, "hush") {
					t.Errorf("%s: logged %s", c.name, r.CacheStatus)
				}
			}
		})
	}
}
