package edge

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestDictionary: RFC 9651 §4.2.2, and what it refuses.
func TestDictionary(t *testing.T) {
	for in, want := range map[string]map[string]sfItem{
		"":                            {},
		"a":                           {"a": {sfBoolean, "1"}},
		"a=?0, b=?1;x;y=1":            {"a": {sfBoolean, "0"}, "b": {sfBoolean, "1"}},
		"a=1,\tb=-15":                 {"a": {sfInteger, "1"}, "b": {sfInteger, "-15"}},
		"a=1, a=2":                    {"a": {sfInteger, "2"}},
		"a=1.5":                       {"a": {sfDecimal, "1.5"}},
		`a="x, \"y\"", *b=t/k:n`:      {"a": {sfString, `x, "y"`}, "*b": {sfToken, "t/k:n"}},
		"a=:aGk=:, b=@16, c=%\"%c3\"": {"a": {sfBytes, "aGk="}, "b": {sfDate, "16"}, "c": {sfDisplay, "%c3"}},
		"a=(1 \"x\";q), b=()":         {"a": {kind: sfInner}, "b": {kind: sfInner}},
		"a;b=1=2":                     nil,
		"A=1":                         nil,
		"a=1,":                        nil,
		"a=1 b=2":                     nil,
		"a,,b":                        nil,
		"a=":                          nil,
		"a=1.":                        nil,
		"a=1.2345":                    nil,
		"a=1234567890123456":          nil,
		"a=--1":                       nil,
		`a="x`:                        nil,
		`a="\x"`:                      nil,
		"a=\"\xc3\"":                  nil,
		"a=(1":                        nil,
		`a=(1"x")`:                    nil,
		"a=:aGk":                      nil,
		"a=@1.5":                      nil,
		"a=?2":                        nil,
		"a=%\"%C3\"":                  nil,
		"a= 1":                        nil,
		"a =1":                        nil,
		"a;=1":                        nil,
	} {
		got, ok := parseDictionary(in)
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, ok, want)
		}
	}
}

func FuzzDictionary(f *testing.F) {
	f.Add(`a=1, b=(1 "x");q=:aGk=:, c="\"", d=%"%c3", e=@1, f=?0`)
	f.Fuzz(func(t *testing.T, in string) {
		members, ok := parseDictionary(in)
		for name := range members {
			if !ok || name == "" || strings.ToLower(name) != name {
				t.Errorf("%q: member %q, %v", in, name, ok)
			}
		}
		parseTargeted(in)
	})
}

// TestTargeted: RFC 9213 §2.1 and §2.2.
func TestTargeted(t *testing.T) {
	for _, c := range []struct {
		vendor, cdn string
		targeted    bool
		adjust      func(*cacheControl)
	}{
		{"", "max-age=60", true, func(cc *cacheControl) { cc.maxAge = time.Minute }},
		{"", "max-age=60;x=y, public=?0, s-maxage=\"60\"", true, func(cc *cacheControl) { cc.maxAge = time.Minute }},
		{"", "max-age=-1, max-stale", true, func(cc *cacheControl) { cc.maxAge = 0 }},
		{"", "max-age=999999999999999", true, func(cc *cacheControl) { cc.maxAge = maxDeltaSeconds * time.Second }},
		{"", "no-store, no-cache, private", true, func(cc *cacheControl) { cc.noStore, cc.noCache, cc.private = true, true, true }},
		{"", `no-cache="a"`, true, func(cc *cacheControl) { cc.withheld = []string{"A"} }},
		{"", "max-age=60, max-age=10", true, func(cc *cacheControl) { cc.maxAge = 10 * time.Second }},
		{"", "public, max-age=60, &", false, func(cc *cacheControl) { cc.noStore = true }},
		{"", "Max-Age=60", false, func(cc *cacheControl) { cc.noStore = true }},
		{"", " ", false, func(cc *cacheControl) { cc.noStore = true }},
		{"max-age=5", "max-age=60", true, func(cc *cacheControl) { cc.maxAge = 5 * time.Second }},
		{"", "", false, func(cc *cacheControl) { cc.noStore = true }},
		{"=", "max-age=60", true, func(cc *cacheControl) { cc.maxAge = time.Minute }},
	} {
		h := http.Header{"Cache-Control": {"no-store"}}
		if c.vendor != "" {
			h.Set(vendorControl, c.vendor)
		}
		if c.cdn != "" {
			h.Set("CDN-Cache-Control", c.cdn)
		}
		want := noDirectives()
		c.adjust(&want)
		cc, targeted := responseDirectives(h)
		if targeted != c.targeted || !reflect.DeepEqual(cc, want) {
			t.Errorf("%q, %q: %+v, %v; want %+v", c.vendor, c.cdn, cc, targeted, want)
		}
	}
}

// TestHeuristic: RFC 9111 §4.2.2.
func TestHeuristic(t *testing.T) {
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		status   int
		public   bool
		modified time.Duration // ago; 0: unknown
		want     time.Duration
	}{
		{200, false, 100 * time.Second, 10 * time.Second},
		{200, false, 100 * 24 * time.Hour, maxHeuristic},
		{200, false, -time.Hour, 0},
		{200, true, 0, 0},
		{404, false, time.Minute, 6 * time.Second},
		{201, false, time.Minute, 0},
		{403, false, time.Minute, 0},
		{403, true, time.Minute, 6 * time.Second},
		{501, false, time.Hour, maxErrorLifetime},
		{503, false, time.Hour, 0},
	} {
		var modified time.Time
		if c.modified != 0 {
			modified = date.Add(-c.modified)
		}
		if got := heuristicLifetime(c.status, &cacheControl{public: c.public}, modified, date); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
