package fleet

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// Every file and every response of a fleet says what it is: its URL, its
// version, its length, and octets that follow from these.

const (
	zone   = "fleet.example"
	pushed = "www." + zone // the push site
)

// pulled are the sites with an origin; the second has a shield.
var pulled = []string{"shop." + zone, "news." + zone}

// pulledPaths are what is asked for on each of them; slow ones come slowly, tags
// and prefixes cover some.
const pulledPaths = 6

func pulledURL(site string, i int) string { return fmt.Sprintf("%s/p%d/%d", site, i%2, i) }

func allPulled() (urls []string) {
	for _, site := range pulled {
		for i := range pulledPaths {
			urls = append(urls, pulledURL(site, i))
		}
	}
	return urls
}

func aURL(r *rand.Rand) string { return pulledURL(pulled[r.IntN(len(pulled))], r.IntN(pulledPaths)) }

var tags = []string{"tag0", "tag1"}

// tagOf is the tag that the origin gives to a URL.
func tagOf(url string) string {
	n, err := strconv.Atoi(url[strings.LastIndexByte(url, '/')+1:])
	if err != nil {
		return ""
	}
	return tags[n/2%2]
}

// pageParts are the files of a page, beside its index. None has a fingerprint in its
// name: each release has others under the same names.
var pageParts = []string{"app.css", "app.js", "logo.svg", "data.json"}

// sizeOf varies, so that a mix of two versions cannot have the right length: up
// to some 60 KB.
func sizeOf(url string, version int) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d", url, version)
	return 200 + int(h.Sum32()%60_000)
}

// bodyOf is the content of a URL in a version.
func bodyOf(url string, version int) []byte {
	size := sizeOf(url, version)
	b := fmt.Appendf(make([]byte, 0, size+64), "fleet %s version %d size %d\n", url, version, size)
	for n := 0; len(b) < size; n++ {
		b = fmt.Appendf(b, "%s %d line %d\n", url, version, n)
	}
	return b[:size]
}

// readBody reads what bodyOf made; wrong says what is not right with it.
func readBody(url string, b []byte) (version int, wrong string) {
	var got string
	var size int
	if _, err := fmt.Sscanf(string(b[:min(len(b), 200)]), "fleet %s version %d size %d\n", &got, &version, &size); err != nil {
		return 0, fmt.Sprintf("content of nobody's: %.60q", b)
	}
	switch {
	case got != url:
		return version, fmt.Sprintf("content of %s", got)
	case len(b) != size:
		return version, fmt.Sprintf("%d octets of %d in version %d", len(b), size, version)
	case !bytes.Equal(b, bodyOf(url, version)):
		return version, fmt.Sprintf("other octets than those of version %d", version)
	}
	return version, ""
}

func TestContent(t *testing.T) {
	b := bodyOf("www.x/a", 7)
	if v, wrong := readBody("www.x/a", b); v != 7 || wrong != "" {
		t.Errorf("version %d, %s", v, wrong)
	}
	other := bytes.Clone(b)
	other[len(other)-2] ^= 1
	for _, c := range []struct {
		url, wrong string
		body       []byte
	}{
		{"www.x/b", "content of www.x/a", b},
		{"www.x/a", "octets of", b[:len(b)-1]},
		{"www.x/a", "other octets", other},
		{"www.x/a", "nobody's", []byte("<html>not found</html>")},
		{"www.x/a", "nobody's", nil},
	} {
		if _, wrong := readBody(c.url, c.body); !strings.Contains(wrong, c.wrong) {
			t.Errorf("%d octets for %s: %q, want %q", len(c.body), c.url, wrong, c.wrong)
		}
	}
}
