package control

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzPurges: what is read the short way is what the decoder reads, and a URL that
// is normal at a glance is normal.
func FuzzPurges(f *testing.F) {
	body, err := json.Marshal(Purges{[]Purge{
		{Site: "www", URL: "http://www.example.com/a/b.html", Soft: true}, {Site: "www", Prefix: "https://www.example.com/a/"},
		{Site: "shop", Tag: "menu"}, {Site: "a", All: true}, {Site: "a", All: true, Soft: true},
	}})
	if err != nil {
		f.Fatal(err)
	}
	if ps, ok := decodePurges(body); !ok || len(ps.Purges) != 5 {
		f.Fatalf("%s is not read the short way", body)
	}
	for _, s := range []string{
		string(body), `{"purges":[]}`, `{"purges":[{"site":"a","url":"\u0061","all":false}]}`, `{"purges":[{"site":"a","url":"ä"},]}`,
		`{"purges":[{"site":"a","soft":true}]}`, `{"purges":[{"site":"a"}]} `, "http://a.test/b/../c", "https://A.test/", "http://a.test/.b/%2e", "http://a..test/",
	} {
		f.Add([]byte(s), s)
	}
	f.Fuzz(func(t *testing.T, b []byte, url string) {
		if short, ok := decodePurges(b); ok {
			var long Purges
			if err := decodeStrict(bytes.NewReader(b), &long); err != nil || !reflect.DeepEqual(*short, long) {
				t.Fatalf("%s: %+v; by the decoder %+v, %v", b, *short, long, err)
			}
		}
		if plainURL(url) {
			if normal, _, err := NormalURL(url); err != nil || normal != url {
				t.Fatalf("%q is plain, and in normal form it is %q, %v", url, normal, err)
			}
		}
	})
}

func BenchmarkDecodePurges(b *testing.B) {
	var ps Purges
	for range maxShared {
		ps.Purges = append(ps.Purges, Purge{Site: "bench", URL: "http://bench.test/many/12345"})
	}
	body, err := json.Marshal(ps)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		short, ok := decodePurges(body)
		if !ok || checkCommand(short) != nil {
			b.Fatal("not read")
		}
	}
}
