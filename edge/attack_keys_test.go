package edge

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// poisons are fields that origins, frameworks and servers in use build pages,
// links, redirects or access from.
var poisons = []string{
	"X-Forwarded-Host", "X-Forwarded-Scheme", "X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Path", "X-Forwarded-Uri", "X-Forwarded-Server",
	"X-Forwarded-Ssl", "X-Forwarded-For", "X-Forwarded-By", "X-Forwarded-Base-Url", "X-Forwarded", "Forwarded", "Forwarded-For", "X-Forward-For", "X-Forward-Proto", "X-Host", "X-Http-Host-Override", "X-Backend-Host", "X-Server-Name",
	"X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Rewrite-Url", "X-Override-Url", "X-Http-Destinationurl", "X-Proxy-Url", "X-Scheme", "X-Url-Scheme", "Front-End-Https", "X-Script-Name", "Base-Url", "Request-Uri", "Proxy-Host", "Proxy-Url",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Real-Ip", "X-Client-Ip", "Client-Ip", "True-Client-Ip", "X-Cluster-Client-Ip", "X-Originating-Ip", "X-Remote-Ip", "X-Remote-Addr", "X-Proxyuser-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip",
	"Wl-Proxy-Client-Ip", "X-Azure-Clientip", "X-Envoy-Original-Path", "X-Envoy-External-Address", "X-Sendfile-Type", "X-Accel-Mapping", "Proxy", "X-Middleware-Subrequest", "X-Now-Route-Matches", "X-Invoke-Path", "X-Invoke-Status",
	"Te", "Upgrade", "Proxy-Authorization", "Http2-Settings", "Keep-Alive",
}

// TestUnkeyedInput: for each field one client poisons, then another asks
// clean: neither page shows what the first sent. Each is tried as it is, in
// lower case, with "_" for "-" and named by Connection.
func TestUnkeyedInput(t *testing.T) {
	attack(t, http.HandlerFunc(reflecting), nil, func(t *testing.T, w *world) {
		ran := 0
		for _, name := range poisons {
			outcome := "stripped"
			for i, spelled := range []string{name, strings.ToLower(name), strings.ReplaceAll(name, "-", "_")} {
				for _, connection := range []string{"", "Connection: " + spelled + "\r\n"} {
					ran++
					target := fmt.Sprintf("/%s/%d?%d", name, i, len(connection))
					status, cached, body := w.fetched(t, target, connection+spelled+": poison.example\r\n")
					if status != 200 || !strings.Contains(cached, "; stored") || strings.Contains(body, "poison") {
						t.Errorf("%s: %d %s, the origin saw %q", spelled, status, cached, body)
					}
					if strings.Contains(body, "\n"+name+": ") {
						outcome = "ours instead"
					}
					if _, cached, body = w.fetched(t, target, ""); !strings.Contains(cached, "; hit") || strings.Contains(body, "poison") {
						t.Errorf("%s, then clean: %s %q", spelled, cached, body)
					}
				}
			}
			t.Logf("%-28s %s", name, outcome)
		}
		if len(poisons) < 40 || ran != 6*len(poisons) {
			t.Errorf("%d fields, %d runs: the corpus has shrunk", len(poisons), ran)
		}
	})
}

// TestKeyedInput: fields that pages are rightly made from pass to the origin;
// one that says Vary is safe from who sends odd ones.
func TestKeyedInput(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", strings.Trim(r.URL.Path, "/"))
		reflecting(w, r)
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		for _, name := range []string{"User-Agent", "Accept", "Accept-Language", "Cookie", "Referer", "Origin", "X-Requested-With", "X-Anything"} {
			if _, _, body := w.fetched(t, "/"+name, name+": poison\r\n"); !strings.Contains(body, "poison") {
				t.Errorf("%s: the origin saw %q", name, body)
			}
			for range 2 {
				if _, _, body := w.fetched(t, "/"+name, ""); strings.Contains(body, "poison") {
					t.Errorf("%s, then clean: %q", name, body)
				}
			}
		}
	})
}

// TestKeyNormalisation: whatever way a URL is spelled, the key and what the
// origin is asked come from one parse: two requests share an answer exactly
// if the origin would have been asked the same.
func TestKeyNormalisation(t *testing.T) {
	attack(t, http.HandlerFunc(reflecting), func(c *Config) { tellAll(c) }, func(t *testing.T, w *world) {
		asked := map[string]string{} // by key: what the origin was asked
		refused := 0
		for _, host := range []string{"shop.test", "SHOP.Test", "shop.test.", "shop.test:80", "shop.test.:80", "shop.test:443", "shop.test:"} {
			for _, target := range []string{
				"/a", "/A", "//a", "/a/", "/a//", "/./a", "/b/../a", "/%2e/a", "/%2E%2E/a", "/%2e%2e/a", "/b/..%2fa", "/b%2f..%2fa", "/a%2Fb", "/a%2fb", "/a/b", "/%61", "/a;b", "/a;B", "/a%3Bb", "/a%3bb", "/a#b", "/a%23b", "/a%00",
				"/a?", "/a?x", "/a?x=1&y=2", "/a?y=2&x=1", "/a?x=%31", "/a?x=1;y=2", "/a??x", "/a?x?y", "/a?%zz", "/a?x=/../b", "/a%3Fx", "/a%20b", "/a+b", "/a|b", "/a%7Cb", "/a%7cb", "/a\\b", "/a%5cb", "/~a", "/%7Ea", "/%7ea", "/a%0d%0ab", "http://shop.test/a", "HTTP://SHOP.test:80/a", "http://shop.test/a?x", "http://shop.test?x",
			} {
				resp := w.send(t, "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
				b, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != 200 {
					refused++
					if resp.StatusCode != 400 {
						t.Errorf("%s on %s: %d", target, host, resp.StatusCode)
					}
					continue
				}
				cs := resp.Header.Get("Cache-Status")
				_, key, _ := strings.Cut(cs, `key="`)
				key, _, _ = strings.Cut(key, `"`)
				line, _, _ := strings.Cut(string(b), "\n")
				words := strings.Fields(line) // method, target, host
				if want := "http://" + words[2] + words[1]; strings.ReplaceAll(key, `\\`, `\`) != want {
					t.Errorf("%s on %s: key %s, the origin was asked %s", target, host, key, want)
				}
				if before, ok := asked[key]; ok != strings.Contains(cs, "; hit") || ok && before != line {
					t.Errorf("%s on %s: %s, the origin saw %q, before %q", target, host, cs, line, before)
				}
				asked[key] = line
			}
		}
		if len(asked) < 40 || refused < 60 {
			t.Errorf("%d keys, %d refused", len(asked), refused)
		}
	})
}

// TestForwardedQueries: a query reaches the origin byte for byte, as it is in
// the key, however many parameters it hides and whatever cannot be parsed.
func TestForwardedQueries(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	queries := []string{"?" + strings.Repeat("a&", 4000) + "b", "?a=%zz", "?a=%", "?a=1;b=2", "?a=1&a=2", "?&&&", "?=", "?a=b=c", "?a=%00", "?a=%0d%0aX:y", "?%u0041", "?a[]=1", "?a=\"<>^`{|}'", "?+", "?a=%2526", "??", "?a=/../"}
	const alphabet = "ab=&;%20+?/:@!$'()*,-._~[]\"<>^`{|}\\"
	for range 200 {
		q := []byte("?")
		for range random.IntN(60) {
			q = append(q, alphabet[random.IntN(len(alphabet))])
		}
		queries = append(queries, string(q))
	}
	attack(t, http.HandlerFunc(reflecting), nil, func(t *testing.T, w *world) {
		for _, q := range queries {
			for range 2 { // fetched, then from the store
				status, _, body := w.fetched(t, "/a"+q, "")
				if status != 200 || !strings.HasPrefix(body, "GET /a"+q+" shop.test\n") {
					t.Errorf("%.100q: %d, the origin saw %.100q", q, status, body)
				}
			}
		}
	})
}

// TestCollapseKeys: requests that differ in their key or in any selecting
// field have different collapse keys, whatever their values contain.
func TestCollapseKeys(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	names := []selecting{{name: "A"}, {name: "B"}, {name: "C"}}
	pieces := []string{"", "a", "b", ",", "\x00", "\xff", "\x00\x00\x01", "a\x00", "a,b", "http://s.test/", "\x00\x00\x01a"}
	text := func() string {
		var b strings.Builder
		for range random.IntN(4) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	seen := map[string]string{}
	for range 20_000 {
		h := http.Header{}
		what := ""
		for _, n := range names {
			if random.IntN(4) > 0 {
				h[n.name] = []string{text()}
				what += fmt.Sprintf("%s=%q ", n.name, normaliseList(h.Get(n.name)))
			}
		}
		key := flightKey("http://s.test/a", names, headerFields(h))
		if before, ok := seen[key]; ok && before != what {
			t.Fatalf("%s and %s have one collapse key %q", before, what, key)
		}
		seen[key] = what
	}
	if len(seen) < 1000 {
		t.Errorf("%d different ones only", len(seen))
	}
}

// TestAcceptEncodingJunk: a value that cannot be read is as good as none that
// names a coding: no variant of its own, and no trip to the origin.
func TestAcceptEncodingJunk(t *testing.T) {
	origin := httptest.NewRecorder()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin.Body.WriteString("x")
		w.Header().Set("Cache-Control", "max-age=86400")
		w.Header().Set("Vary", "Accept-Encoding")
		fmt.Fprintf(w, "%q", r.Header["Accept-Encoding"])
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		_, _, plain := w.fetched(t, "/a", "Accept-Encoding: identity\r\n")
		for _, junk := range []string{"", ",", ";", ";q=1", "q", "gzip;q", "gzip;q=", "gzip;q=x", "gzip;q=2", "gzip;q=-1", "gzip;q=1.0000", "br;q=1;q=0", "gz ip", "\"gzip\"", "deflate, x;y=z", "@@@", strings.Repeat("a,", 1000), "\xff\xfe"} {
			status, cached, body := w.fetched(t, "/a", "Accept-Encoding: "+junk+"\r\n")
			if status != 200 || body != plain || !strings.Contains(cached, "; hit") {
				t.Errorf("%.40q: %d %s %s", junk, status, cached, body)
			}
		}
		if n := origin.Body.Len(); n != 1 {
			t.Errorf("%d trips to the origin", n)
		}
	})
}

// TestMethodOverride: an override changes neither the method of the key nor
// that of the origin's request, and a body on GET is in no page.
func TestMethodOverride(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reflecting(w, r)
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "body %q", b)
	})
	attack(t, h, nil, func(t *testing.T, w *world) {
		for i, odd := range []string{
			"X-HTTP-Method-Override: DELETE\r\n\r\n", "X-HTTP-Method: PUT\r\n\r\n", "X-Method-Override: POST\r\n\r\n", "X_HTTP_METHOD_OVERRIDE: DELETE\r\n\r\n",
			"Content-Length: 6\r\n\r\npoison", "Transfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", "Content-Length: 14\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n_method=DELETE", "Content-Length: 6\r\nX-HTTP-Method-Override: POST\r\n\r\npoison",
		} {
			target := fmt.Sprintf("/%d", i)
			w.raw(t, "GET "+target+" HTTP/1.1\r\nHost: shop.test\r\n"+odd)
			_, cached, body := w.fetched(t, target, "")
			if !strings.Contains(cached, "; hit") || !strings.HasPrefix(body, "GET "+target+" ") || !strings.HasSuffix(body, `body ""`) || strings.Contains(body, "Override") {
				t.Errorf("%q: %s %q", odd, cached, body)
			}
		}
	})
}
