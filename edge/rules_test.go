package edge

import (
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseCacheControl(t *testing.T) {
	none := parseCacheControl("")
	for _, c := range []struct {
		in     string
		adjust func(*cacheControl)
	}{
		{"", func(*cacheControl) {}},
		{"MAX-AGE=5", func(cc *cacheControl) { cc.maxAge = 5 * time.Second }},
		{`max-age="5", S-maxage=7`, func(cc *cacheControl) { cc.maxAge, cc.sMaxAge = 5*time.Second, 7*time.Second }},
		{"max-age=5, max-age=9", func(cc *cacheControl) { cc.maxAge = 5 * time.Second }},
		{"max-age=05", func(cc *cacheControl) { cc.maxAge = 5 * time.Second }},
		// What cannot be read is no lifetime (RFC 9111 §4.2.1).
		{"max-age=", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age=-1", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age=1.5", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age=1 0", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age='5'", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age= 5", func(cc *cacheControl) { cc.maxAge = 0 }},
		{"max-age =5", func(cc *cacheControl) { cc.maxAge = 0 }},
		{`max-age ="5"`, func(cc *cacheControl) { cc.maxAge = 0 }},
		// RFC 9111 §1.2.2.
		{"max-age=2147483648", func(cc *cacheControl) { cc.maxAge = maxDeltaSeconds * time.Second }},
		{"max-age=99999999999999999999999", func(cc *cacheControl) { cc.maxAge = maxDeltaSeconds * time.Second }},
		{`x="a, no-store", public`, func(cc *cacheControl) { cc.public = true }},
		{`x="a\", no-store", private`, func(cc *cacheControl) { cc.private = true }},
		{`private="set-cookie, X", no-cache="a"`, func(cc *cacheControl) { cc.withheld = []string{"Set-Cookie", "X", "A"} }},
		{`private="", no-cache="a b"`, func(cc *cacheControl) { cc.private, cc.noCache = true, true }},
		{`private, private="a"`, func(cc *cacheControl) { cc.private, cc.withheld = true, []string{"A"} }},
		{`no-cache="` + strings.Repeat("a,", maxWithheld+1) + `"`, func(cc *cacheControl) { cc.noCache = true }},
		{" ,, no-store ,", func(cc *cacheControl) { cc.noStore = true }},
		{"no-storex, xno-store", func(*cacheControl) {}},
		{"max-stale", func(cc *cacheControl) { cc.maxStale = maxDeltaSeconds * time.Second }},
	} {
		want := none
		c.adjust(&want)
		if got := parseCacheControl(c.in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", c.in, got, want)
		}
	}
}

// TestAges is the arithmetic of RFC 9111 §4.2.3.
func TestAges(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name        string
		ageValue    int64
		date, asked time.Duration // against the response's coming
		noDate      bool
		resident    time.Duration
		want        time.Duration
	}{
		{name: "new", want: 0},
		{name: "delay", asked: -3 * time.Second, want: 3 * time.Second},
		{name: "Age and delay", ageValue: 10, asked: -3 * time.Second, want: 13 * time.Second},
		{name: "Date is older than Age says", ageValue: 10, date: -60 * time.Second, want: 60 * time.Second},
		{name: "the origin's clock is ahead", date: time.Hour, want: 0},
		{name: "no Date", noDate: true, ageValue: 7, want: 7 * time.Second},
		{name: "resident", ageValue: 10, resident: 5 * time.Second, want: 15 * time.Second},
		{name: "our clock went back", resident: -time.Hour, want: 0},
		{name: "absurd Age", ageValue: maxDeltaSeconds, asked: -time.Second, want: maxDeltaSeconds * time.Second},
		{name: "within the second of Date", date: -900 * time.Millisecond, want: 0},
	} {
		came := base.Add(900 * time.Millisecond)
		date := came.Add(c.date).Truncate(time.Second)
		if c.noDate {
			date = time.Time{}
		}
		if c.date == 0 {
			date = came.Truncate(time.Second)
		}
		a := initialAge(c.ageValue, date, came.Add(c.asked), came)
		if got := a.currentAge(came.Add(c.resident)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for in, want := range map[string]int64{"5": 5, "5, 7": 5, "-5": 0, "1.5": 0, "x": 0, "": 0, "99999999999": maxDeltaSeconds} {
		if got := parseAge([]string{in, "3"}); got != want {
			t.Errorf("Age %q: %d, want %d", in, got, want)
		}
	}
}

// TestMonotonic: a step of the wall clock ages nothing.
func TestMonotonic(t *testing.T) {
	came := time.Now() // with a monotonic reading
	a := initialAge(0, time.Time{}, came, came)
	now := came.Add(time.Second)
	if got := a.currentAge(now); got != time.Second {
		t.Errorf("age %v", got)
	}
	if strings.Contains(a.responseTime.String(), "m=") == false {
		t.Error("the time of the response lost its monotonic reading")
	}
}

// TestParseDate: RFC 9110 §5.6.7. What is nearly a date is none.
func TestParseDate(t *testing.T) {
	near := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"Sun, 06 Nov 1994 08:49:37 GMT":     "1994-11-06T08:49:37Z",
		"sun, 06 NOV 1994 08:49:37 gmt":     "1994-11-06T08:49:37Z",
		" Sun, 06 Nov 1994 08:49:37 GMT\t":  "1994-11-06T08:49:37Z",
		"Mon, 06 Nov 1994 08:49:37 GMT":     "1994-11-06T08:49:37Z", // it was a Sunday
		"Sunday, 06-Nov-94 08:49:37 GMT":    "1994-11-06T08:49:37Z",
		"Wednesday, 06-Nov-75 08:49:37 GMT": "2075-11-06T08:49:37Z",
		"Saturday, 06-Nov-76 08:49:37 GMT":  "1976-11-06T08:49:37Z",
		"Sun Nov  6 08:49:37 1994":          "1994-11-06T08:49:37Z",
		"Sun Nov 16 08:49:37 1994":          "1994-11-16T08:49:37Z",
		"Sun, 06  Nov  1994 08:49:37 GMT":   "",
		"Sun, 06 Nov 1994 8:49:37 GMT":      "",
		"Sun, 6 Nov 1994 08:49:37 GMT":      "",
		"Sun, 06 Nov 94 08:49:37 GMT":       "",
		"Sun, 06-Nov-1994 08:49:37 GMT":     "",
		"Sun, 06 Nov 1994 08.49.37 GMT":     "",
		"Sun, 06 Nov 1994 08:49:37.5 GMT":   "",
		"Sun, 06 Nov 1994 08:49:37 UTC":     "",
		"Sun, 06 Nov 1994 08:49:37 +0000":   "",
		"Sun, 32 Nov 1994 08:49:37 GMT":     "",
		"Sun Nov 6 08:49:37 1994":           "",
		"0":                                 "",
		"":                                  "",
	} {
		got, ok := parseDate(in, near)
		if ok != (want != "") || ok && got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v; want %s", in, got, ok, want)
		}
	}
}

func TestETags(t *testing.T) {
	for _, c := range []struct {
		list, tag    string
		strong, weak bool
	}{
		{`"a"`, `"a"`, true, true},
		{`W/"a"`, `"a"`, false, true},
		{`"a"`, `W/"a"`, false, true},
		{`"b" , "a"`, `"a"`, true, true},
		{`"b", W/"a", "a"`, `"a"`, true, true},
		{`"a,b"`, `"a,b"`, true, true},
		{`"a,b"`, `"b"`, false, false},
		{`,, "a"`, `"a"`, true, true},
		{`*`, `"a"`, true, true},
		{`a`, `a`, false, true}, // quotes forgotten
		{`a`, `"a"`, false, true},
		{`"b", "a"`, `a`, false, true},
		{`b`, `"a"`, false, false},
		{`W/a`, `"a"`, false, false},
		{`w/"a"`, `"a"`, false, false},
		{`a, b`, `a`, false, false},
		{`w/"a"`, `"a"`, false, false},
		{`"a`, `"a`, false, false},
		{``, ``, false, false},
	} {
		if got := etagListed(c.list, c.tag, strongMatch); got != c.strong {
			t.Errorf("%s in %s, strongly: %v", c.tag, c.list, got)
		}
		if got := etagListed(c.list, c.tag, weakMatch); got != c.weak {
			t.Errorf("%s in %s, weakly: %v", c.tag, c.list, got)
		}
	}
}

func TestParseRanges(t *testing.T) {
	many := "bytes=0-0" + strings.Repeat(",", 3)
	for i := 1; i <= maxRanges; i++ {
		many += "," + rangeAt(i*200)
	}
	for _, c := range []struct {
		in   string
		size int64
		want string
	}{
		{"bytes=0-0", 10, "0+1"},
		{"BYTES=0-", 10, "0+10"},
		{"bytes=9-99", 10, "9+1"},
		{"bytes=-99", 10, "0+10"},
		{"bytes=-0", 10, "unsatisfiable"},
		{"bytes=10-", 10, "unsatisfiable"},
		{"bytes=0-", 0, "unsatisfiable"},
		{"bytes=0-0,500-", 1000, "0+1 500+500"},
		{"bytes=0-0,50-60", 1000, "0+61"}, // nearly touching
		{"bytes=0-0,2000-", 1000, "0+1"},
		{"bytes=500-501,0-1", 1000, "ignore"},
		{"bytes=0-,0-,0-", 1000, "0+1000"},
		{"bytes=0-99,50-199,50-60,190-", 200, "0+200"}, // more octets than there are
		{"bytes=1-0", 10, "ignore"},
		{"bytes=", 10, "ignore"},
		{"bytes=a-b", 10, "ignore"},
		{"bytes=--1", 10, "ignore"},
		{"bytes 0-1", 10, "ignore"},
		{"bytes=18446744073709551616-", 10, "unsatisfiable"},
		{"bytes=0-18446744073709551616", 10, "0+10"},
		{"bytes=-9223372036854775808", 10, "0+10"}, // CVE-2017-7529
		{many, 100000, "ignore"},                   // CVE-2011-3192
	} {
		ranges, answer := parseRanges(c.in, c.size)
		got := map[rangeAnswer]string{ignoreRange: "ignore", unsatisfiable: "unsatisfiable"}[answer]
		for _, r := range ranges {
			got += " " + rangeText(r)
		}
		if got = strings.TrimSpace(got); got != c.want {
			t.Errorf("%.40q of %d: %s, want %s", c.in, c.size, got, c.want)
		}
	}
}

func rangeText(r byteRange) string {
	return strconv.FormatInt(r.start, 10) + "+" + strconv.FormatInt(r.length, 10)
}

func rangeAt(i int) string { return strconv.Itoa(i) + "-" + strconv.Itoa(i) }

// TestMultipartRanges: RFC 9110 §14.6, read back by mime/multipart.
func TestMultipartRanges(t *testing.T) {
	content := strings.Repeat("0123456789", 100)
	e, err := New(Config{Sites: []Site{{Name: "s", Hosts: []string{"s.test"}, Origin: HandlerTransport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		io.WriteString(w, content)
	}))}}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 1000 {
		w := newAnswer()
		call(t.Context(), e, w, "Range", "bytes=0-1,500-501,-3")
		if w.status == http.StatusOK { // still being stored
			continue
		}
		kind, params, err := mime.ParseMediaType(w.header.Get("Content-Type"))
		if w.status != 206 || kind != "multipart/byteranges" || err != nil || w.header.Get("Content-Length") != strconv.Itoa(w.body.Len()) {
			t.Fatalf("%d %v, %d octets, %v", w.status, w.header, w.body.Len(), err)
		}
		parts := multipart.NewReader(&w.body, params["boundary"])
		for _, want := range []struct{ at, text string }{{"bytes 0-1/1000", "01"}, {"bytes 500-501/1000", "01"}, {"bytes 997-999/1000", "789"}} {
			p, err := parts.NextPart()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(p)
			if err != nil || string(text) != want.text || p.Header.Get("Content-Range") != want.at || p.Header.Get("Content-Type") != "text/plain" {
				t.Errorf("part %v %q, %v, want %+v", p.Header, text, err, want)
			}
		}
		if _, err := parts.NextPart(); err != io.EOF {
			t.Errorf("after the last part: %v", err)
		}
		return
	}
	t.Error("never stored")
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		raw, host string
		tls       bool
		want      string // the key, or the status of the refusal
	}{
		{"/a?b", "Shop.Test", false, "http://shop.test/a?b"},
		{"/a", "shop.test:80", false, "http://shop.test/a"},
		{"/a", "shop.test:443", false, "http://shop.test:443/a"},
		{"/a", "shop.test:443", true, "https://shop.test/a"},
		{"/a", "shop.test:", false, "http://shop.test/a"},
		{"/a", "shop.test.", false, "http://shop.test/a"},
		{"/a", "[2001:db8::1]:8080", false, "http://[2001:db8::1]:8080/a"},
		{"http://shop.test?x", "other", false, "http://shop.test/?x"},
		{"HTTP://shop.test", "other", false, "http://shop.test/"},
		{"/a?", "shop.test", false, "http://shop.test/a?"},
		{"//a//b/", "shop.test", false, "http://shop.test//a//b/"},
		{"/%7ea;b=c?x=%zz&..", "shop.test", false, "http://shop.test/%7ea;b=c?x=%zz&.."},
		{"/a|b\"^`{}<>?|", "shop.test", false, "http://shop.test/a%7Cb%22%5E%60%7B%7D%3C%3E?|"},
		{"/a", "", false, "400"},
		{"/a", ".", false, "400"},
		{"/a", "a..b", false, "400"},
		{"/a", "user@shop.test", false, "400"},
		{"/a", "shop.test:080", false, "400"},
		{"/a", "shop.test:65536", false, "400"},
		{"/a", "[::1", false, "400"},
		{"/a", "[fe80::1%25eth0]", false, "400"},
		{"/a", "shop test", false, "400"},
		{"/a", "shop.test/x", false, "400"},
		{"a", "shop.test", false, "400"},
		{"ftp://shop.test/", "shop.test", false, "400"},
		{"/a#b", "shop.test", false, "400"},
		{"/a\\b", "shop.test", false, "400"},
		{"/%", "shop.test", false, "400"},
		{"/%2", "shop.test", false, "400"},
		{"/..", "shop.test", false, "400"},
		{"/.", "shop.test", false, "400"},
		{"/a/.%2E/b", "shop.test", false, "400"},
		{"/a/%2e%2e%5cb", "shop.test", false, "400"},
		{"/..;x/b", "shop.test", false, "400"},
		{"https://shop.test/a", "shop.test", false, "421"},
	} {
		tg, err := parseTarget(c.raw, c.host, c.tls)
		got := tg.key()
		if err != nil {
			got = strconv.Itoa(err.(*refused).status)
		}
		if got != c.want {
			t.Errorf("%s on %s: %s (%v), want %s", c.raw, c.host, got, err, c.want)
		}
		if err == nil {
			if u := tg.url(); u.RequestURI() != tg.path+tg.query || u.Host != tg.authority {
				t.Errorf("%s: to the origin goes %s on %s", c.raw, u.RequestURI(), u.Host)
			}
		}
	}
}
