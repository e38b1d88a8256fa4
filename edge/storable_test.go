package edge

import (
	"net/http"
	"testing"
)

// TestStorable: RFC 9111 §3. Each reason is a token, since Cache-Status has it
// (RFC 9211 §2.8).
func TestStorable(t *testing.T) {
	safe := &Site{}
	open := &Site{ShareSetCookie: true, StoreClientErrors: true}
	for _, c := range []struct {
		site       *Site
		status     int
		control    string
		field      [2]string
		authorized bool
		want       refusal
	}{
		{safe, 200, "max-age=1", [2]string{}, false, ""},
		{safe, 299, "max-age=1", [2]string{}, false, ""},
		{safe, 103, "max-age=1", [2]string{}, false, "not-final"},
		{safe, 206, "max-age=1", [2]string{}, false, "partial"},
		{safe, 304, "max-age=1", [2]string{}, false, "partial"},
		{safe, 400, "max-age=1", [2]string{}, false, "client-error"},
		{safe, 414, "max-age=1", [2]string{}, false, "client-error"},
		{open, 400, "max-age=1", [2]string{}, false, ""},
		{open, 414, "max-age=1", [2]string{}, false, ""},
		{open, 429, "max-age=1", [2]string{}, false, "client-error"},
		{open, 431, "max-age=1", [2]string{}, false, "client-error"},
		{safe, 299, "max-age=1, must-understand", [2]string{}, false, "must-understand"},
		{safe, 200, "max-age=1, must-understand, no-store", [2]string{}, false, ""},
		{safe, 200, "max-age=1, no-store", [2]string{}, false, "no-store"},
		{safe, 200, "max-age=1, private", [2]string{}, false, "private"},
		{safe, 200, "max-age=1", [2]string{}, true, "authorization"},
		{safe, 200, "max-age=1, public", [2]string{}, true, ""},
		{safe, 200, "s-maxage=1", [2]string{}, true, ""},
		{safe, 200, "max-age=1, must-revalidate", [2]string{}, true, ""},
		{safe, 200, "max-age=1", [2]string{"Set-Cookie", "a=b"}, false, "set-cookie"},
		{open, 200, "max-age=1", [2]string{"Set-Cookie", "a=b"}, false, ""},
		{safe, 200, "max-age=1", [2]string{"Vary", "*"}, false, "vary-any"},
		{safe, 200, "", [2]string{}, false, "no-lifetime"},
		{safe, 200, "public", [2]string{}, false, "no-lifetime"},
		{safe, 200, "", [2]string{"Etag", `"1"`}, false, ""},
		{safe, 302, "", [2]string{"Etag", `"1"`}, false, "no-lifetime"},
		{safe, 503, "", [2]string{"Etag", `"1"`}, false, "no-lifetime"},
	} {
		h := http.Header{}
		if c.field[0] != "" {
			h.Set(c.field[0], c.field[1])
		}
		cc := parseCacheControl(c.control)
		explicit := cc.maxAge != noDelta || cc.sMaxAge != noDelta
		got := storable(c.site, c.status, h, &cc, c.authorized, explicit)
		if got != c.want || got != "" && !isToken(string(got)) {
			t.Errorf("%d, %q, %v, authorized %v: %q, want %q", c.status, c.control, c.field, c.authorized, got, c.want)
		}
	}
}

// FuzzKey: what makes a key is stable: rules applied twice change nothing more,
// and add nothing; a field normalised is equal to itself.
func FuzzKey(f *testing.F) {
	f.Add("?b=2&utm_x=1&&a;c=%zz", "gzip;q=0.5, br, *;q=0", "de-DE, en;q=0.8")
	rules := []QueryRules{{}, {Sort: true}, {Keep: []string{"a", "b*"}}, {Drop: []string{"utm_*", "b"}, Sort: true}}
	f.Fuzz(func(t *testing.T, query, encoding, language string) {
		for i := range rules {
			once := rules[i].apply("?" + query)
			if len(once) > len(query)+1 {
				t.Errorf("%+v made %q longer: %q", rules[i], query, once)
			}
			if twice := rules[i].apply(once); twice != once {
				t.Errorf("%+v: %q, then %q", rules[i], once, twice)
			}
		}
		h := headerFields{"Accept-Encoding": {encoding}, "Accept-Language": {language}}
		sel := selectingFields([]string{"Accept-Encoding", "Accept-Language"}, h)
		if !varyMatches(sel, h) {
			t.Errorf("%q, %q do not select what they brought", encoding, language)
		}
		if n := normaliseEncoding(encoding); normaliseEncoding(n) != n {
			t.Errorf("%q: %q, then %q", encoding, n, normaliseEncoding(n))
		}
	})
}
