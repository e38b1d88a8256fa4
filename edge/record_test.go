package edge

import (
	"bytes"
	"flag"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var updateRecord = flag.Bool("update-record", false, "write testdata/record-v1 anew")

func testBoot() *boot {
	return &boot{id: 0x0102030405060708, base: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
}

// sampleRecords have between them all that a record can say.
func sampleRecords(b *boot) []*stored {
	site := &Site{Name: "shop"}
	at := b.base.Add(90*time.Second + 5)
	h := func(pairs ...string) http.Header {
		h := http.Header{"Date": {"Tue, 24 Nov 2026 12:01:00 GMT"}}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
		}
		return h
	}
	full := newStored(site, 200, h("Cache-Control", "public, s-maxage=60, must-revalidate, stale-if-error=9, stale-while-revalidate=5", "Etag", `"x"`,
		"Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT", "Vary", "Accept, Accept-Language", "Link", "</a>", "Link", "</b>", "Age", "7"), at, at.Add(time.Second))
	full.key, full.asOf = "http://shop.test/a?b", instant{41, 3}
	full.scopes = purgeScopes{site: "shop", resource: "shop.test/a?b", tags: []string{"summer", "winter"}, groups: []string{"winter"}, origin: "http://shop.test", anyTag: true}
	full.tags = http.Header{"Cache-Groups": {`"winter"`}, "Surrogate-Key": {"summer"}}
	full.sel = []selecting{{"Accept", "text/html", "text/html, ", true}, {"Accept-Language", "", "", false}}
	full.aheadAge, full.size = 55*time.Second, 12345
	bare := newStored(site, 404, h("Cache-Control", "no-cache, proxy-revalidate"), at, at)
	bare.key, bare.scopes = "http://shop.test/", purgeScopes{site: "shop", resource: "shop.test/"}
	slice := newStored(site, 206, h("Cache-Control", "max-age=10", "Etag", `"x"`), at, at)
	slice.part, slice.size, slice.header = &part{start: 1 << 20, total: 5 << 20}, 1<<20, nil
	slice.key = "http://shop.test/film\x00\"x\"\x001"
	full.head, full.head304 = []byte("HTTP/1.1 200 OK\r\nVary: Accept\r\n"), []byte("HTTP/1.1 304 Not Modified\r\n")
	bare.head = []byte("HTTP/1.1 404 Not Found\r\n")
	return []*stored{full, bare, slice}
}

// comparable is what a record keeps of o: all that a stored response is used for.
func comparable(o *stored) stored {
	c := stored{ages: o.ages, validators: o.validators, key: o.key, scopes: o.scopes, sel: o.sel, status: o.status, header: o.header, lifetime: o.lifetime,
		hasLifetime: o.hasLifetime, targeted: o.targeted, asOf: o.asOf, tags: o.tags, size: o.size, part: o.part, head: o.head, head304: o.head304, aheadAge: o.aheadAge}
	c.cc = noDirectives()
	c.cc.noCache, c.cc.public, c.cc.mustRevalidate, c.cc.proxyRevalidate = o.cc.noCache, o.cc.public, o.cc.mustRevalidate, o.cc.proxyRevalidate
	c.cc.staleIfError, c.cc.staleWhileRevalidate = o.cc.staleIfError, o.cc.staleWhileRevalidate
	if o.cc.sMaxAge != noDelta {
		c.cc.sMaxAge = o.lifetime
	}
	if len(c.sel) == 0 {
		c.sel = nil
	}
	if len(c.head) == 0 {
		c.head = nil
	}
	if len(c.head304) == 0 {
		c.head304 = nil
	}
	if len(c.header) == 0 {
		c.header = nil
	}
	if len(c.scopes.tags) == 0 {
		c.scopes.tags = nil
	}
	if len(c.scopes.groups) == 0 {
		c.scopes.groups = nil
	}
	return c
}

// TestRecordRoundTrip: a record says all that is used of a stored response, and
// what it says does not change when its octets do.
func TestRecordRoundTrip(t *testing.T) {
	b := testBoot()
	for _, o := range sampleRecords(b) {
		r := appendRecord([]byte("before"), o, b)[len("before"):]
		if n, body, err := recordLength(r); n != len(r) || body != o.size || err != nil {
			t.Errorf("%q: length %d of %d, body %d: %v", o.key, n, len(r), body, err)
		}
		got, err := readRecord(append(bytes.Clone(r), "the body"...), b)
		if err != nil {
			t.Fatalf("%q: %v", o.key, err)
		}
		if a, b := comparable(got), comparable(o); !reflect.DeepEqual(a, b) {
			t.Errorf("%q:\n got %+v\nwant %+v", o.key, a, b)
		}
		if again := appendRecord(nil, got, b); !bytes.Equal(again, r) {
			t.Errorf("%q: written again it differs", o.key)
		}
		clear(r)
		if got.key != o.key || string(got.head) != string(o.head) {
			t.Error("what was read shares the record's memory")
		}
	}
}

// TestRecordOfAnotherProcess: its age goes on by the wall clock until this one
// began, never below what it was; and purges of that process alone are none of ours.
func TestRecordOfAnotherProcess(t *testing.T) {
	b := testBoot()
	o := sampleRecords(b)[0]
	r := appendRecord(nil, o, b)
	for _, later := range []time.Duration{time.Hour, -time.Hour} { // the clock was set back
		here := &boot{id: 9, base: b.base.Add(later)}
		got, err := readRecord(r, here)
		if err != nil {
			t.Fatal(err)
		}
		now := here.base.Add(time.Second)
		if age, want := got.currentAge(now), o.currentAge(now); age != want || age < o.correctedInitialAge {
			t.Errorf("started %v later: age %v, want %v", later, age, want)
		}
		if got.asOf != (instant{41, 0}) {
			t.Errorf("as of %v", got.asOf)
		}
	}
}

// TestRecordGolden: records of this version stay readable. A change of the
// layout needs another version, and keeps this file and its reader or refuses it.
func TestRecordGolden(t *testing.T) {
	b := testBoot()
	const path = "testdata/record-v1"
	var want []byte
	for _, o := range sampleRecords(b) {
		want = appendRecord(want, o, b)
	}
	if *updateRecord {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, want) {
		t.Errorf("records of version %d are not what they were", recordVersion)
	}
	for _, o := range sampleRecords(b) {
		got, err := readRecord(file, b)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := comparable(got), comparable(o); !reflect.DeepEqual(a, b) {
			t.Errorf("%q:\n got %+v\nwant %+v", o.key, a, b)
		}
		n, _, _ := recordLength(file)
		file = file[n:]
	}
	if len(file) != 0 {
		t.Errorf("%d octets are left", len(file))
	}
	for cut := range len(want) {
		if cut < recText {
			if _, err := readRecord(want[:cut], b); err == nil {
				t.Fatalf("%d octets are taken for a record", cut)
			}
		}
	}
	next := bytes.Clone(want)
	next[3]++
	if _, err := readRecord(next, b); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("another version: %v", err)
	}
}

// TestViewAllocatesNothing: a hit looks at a record for free.
func TestViewAllocatesNothing(t *testing.T) {
	b := testBoot()
	r := appendRecord(nil, sampleRecords(b)[0], b)
	text, o := string(r), new(stored)
	if n := testing.AllocsPerRun(100, func() {
		if err := o.view(r, text, b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRecord(f *testing.F) {
	b := testBoot()
	for _, o := range sampleRecords(b) {
		f.Add(appendRecord(nil, o, b))
	}
	f.Add([]byte("PgR\x01"))
	f.Fuzz(func(t *testing.T, r []byte) {
		o, err := readRecord(r, b)
		if err != nil {
			return
		}
		n, size, err := recordLength(r)
		if err != nil || n > len(r) || size != o.size || o.status < 200 {
			t.Fatalf("length %d of %d, body %d: %v", n, len(r), size, err)
		}
		o.currentAge(b.base)
		next := appendRecord(nil, o, b)
		again, err := readRecord(next, b)
		if err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
		if x, y := comparable(again), comparable(o); !reflect.DeepEqual(x, y) {
			t.Fatalf("\n got %+v\nwant %+v", x, y)
		}
	})
}

func BenchmarkView(b *testing.B) {
	at := testBoot()
	r := appendRecord(nil, sampleRecords(at)[0], at)
	text, o := string(r), new(stored)
	b.ReportAllocs()
	for b.Loop() {
		if o.view(r, text, at) != nil {
			b.Fatal("no record")
		}
	}
}
