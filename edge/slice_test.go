package edge

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// largeFile is an origin with one representation of any size, whose octets
// follow from their place. It answers ranges as net/http's file server does.
type largeFile struct {
	size     int64
	etag     atomic.Value // string
	modified time.Time
	cc       string
	delay    time.Duration
	mu       sync.Mutex
	asked    []string // method and Range of each request
	octets   atomic.Int64
	ignores  bool  // knows no ranges
	careless bool  // knows no If-Range
	flaps    bool  // tags the file otherwise each time
	most     int64 // octets of a range that it gives, or 0
	shift    byte  // of the octets, for another representation
	tags     string
}

func newLargeFile(size int64) *largeFile {
	f := &largeFile{size: size, cc: "max-age=60"}
	f.etag.Store(`"v1"`)
	return f
}

// octetsAt are n octets of the representation.
func (f *largeFile) octetsAt(start, n int64) []byte {
	// In blocks, whose number stands at their start.
	const block = 1 << 10
	var b []byte
	for at := start - start%block; at < start+n; at += block {
		b = append(fmt.Appendf(b, "%d/%d", at, f.shift), padding[:block]...)
		b = b[:at-(start-start%block)+block]
	}
	return b[start%block:][:n]
}

var padding = strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", 100)

type fileReader struct {
	f  *largeFile
	at int64
}

func (r *fileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.f.size
	}
	r.at = offset
	return offset, nil
}

func (r *fileReader) Read(p []byte) (int, error) {
	n := min(int64(len(p)), r.f.size-r.at)
	if n == 0 {
		return 0, io.EOF
	}
	copy(p, r.f.octetsAt(r.at, n))
	r.at += n
	r.f.octets.Add(n)
	return int(n), nil
}

func (f *largeFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.Header.Get("Range")))
	f.mu.Unlock()
	time.Sleep(f.delay)
	w.Header().Set("Cache-Control", f.cc)
	w.Header().Set("Content-Type", "video/mp4")
	if f.tags != "" {
		w.Header().Set("Surrogate-Key", f.tags)
	}
	if tag := f.etag.Load().(string); tag != "" {
		w.Header().Set("Etag", tag)
	}
	if f.ignores {
		r.Header.Del("Range")
		w.Header().Set("Content-Length", fmt.Sprint(f.size))
		if r.Method != http.MethodHead {
			io.Copy(w, &fileReader{f: f})
		}
		return
	}
	if f.careless {
		r.Header.Del("If-Range")
	}
	if f.flaps {
		w.Header().Set("Etag", fmt.Sprintf(`"%d"`, f.octets.Add(1)))
	}
	if want, answer := parseRanges(r.Header.Get("Range"), f.size); f.most > 0 && answer == satisfyRange && want[0].length > f.most {
		r.Header.Set("Range", rangeField(want[0].start, f.most))
	}
	http.ServeContent(w, r, "", f.modified, &fileReader{f: f})
}

func (f *largeFile) requests() string {
	synctest.Wait() // a slice may still be coming
	f.mu.Lock()
	defer f.mu.Unlock()
	text := strings.Join(f.asked, ", ")
	f.asked = nil
	return text
}

// slicing runs a test of an edge before a large file, over real connections.
func slicing(t *testing.T, f *largeFile, memory int64, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true, func(c *Config) { c.MemoryBytes = memory })
		defer w.stop()
		ln, err := w.network.Listen("tcp", rawOriginAddr)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: f}
		go server.Serve(ln)
		defer server.Close()
		pool := poolTo(t, w.network, rawOriginAddr)
		defer pool.Close()
		if err := w.edge.SetSites([]Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: pool}}); err != nil {
			t.Fatal(err)
		}
		test(t, w)
		synctest.Wait()
		if w.edge.store.filling != 0 || len(w.edge.flights.m) != 0 {
			t.Errorf("%d octets are reserved, %d fetches under way", w.edge.store.filling, len(w.edge.flights.m))
		}
	})
}

// expect asks for a range, "" for all, when all that went before has come to
// its end, and holds the octets against the file.
func (f *largeFile) expect(t *testing.T, w *world, rng string, start, n int64, cache string) {
	t.Helper()
	synctest.Wait()
	f.expectNow(t, w, rng, start, n, cache)
}

func (f *largeFile) expectNow(t *testing.T, w *world, rng string, start, n int64, cache string) {
	t.Helper()
	var fields []string
	want := http.StatusOK
	if rng != "" {
		fields, want = []string{"Range", "bytes=" + rng}, http.StatusPartialContent
	}
	status, h, body, whole := w.get("/film", fields...)
	if status != want || !whole || !bytes.Equal([]byte(body), f.octetsAt(start, n)) {
		t.Errorf("%q: %d, %d octets, want %d; whole %v; %v", rng, status, len(body), n, whole, h)
	}
	if rng != "" && h.Get("Content-Range") != (byteRange{start, n}).contentRange(f.size) {
		t.Errorf("%q: Content-Range %q", rng, h.Get("Content-Range"))
	}
	if !strings.Contains(h.Get("Cache-Status"), cache) || h.Get("Content-Type") != "video/mp4" {
		t.Errorf("%q: %s, want %s; %v", rng, h.Get("Cache-Status"), cache, h)
	}
}

// http-checklist 13, reliability.md 2.2: a range of one octet costs the origin
// a slice at most, and what has been fetched is used again.
func TestOneOctetOfALargeFile(t *testing.T) {
	f := newLargeFile(10 << 30)
	slicing(t, f, 0, func(t *testing.T, w *world) {
		const middle = 5 << 30
		f.expect(t, w, fmt.Sprintf("%d-%d", middle, middle), middle, 1, "fwd=uri-miss")
		if got := f.requests(); got != fmt.Sprintf("GET bytes=%d-%d", middle, middle) || f.octets.Swap(0) != 1 {
			t.Errorf("the origin was asked %s", got)
		}
		f.expect(t, w, fmt.Sprintf("%d-%d", middle, middle), middle, 1, "hit")
		f.expect(t, w, fmt.Sprintf("%d-%d", middle+1, middle+2), middle+1, 2, "hit")
		if got := f.requests(); got != fmt.Sprintf("GET bytes=%d-%d", middle, middle+sliceBytes-1) || f.octets.Swap(0) != sliceBytes {
			t.Errorf("the origin was asked %s", got)
		}
		f.expect(t, w, fmt.Sprintf("%d-%d", middle+sliceBytes-10, middle+sliceBytes-1), middle+sliceBytes-10, 10, "hit")
		f.expect(t, w, "-1", f.size-1, 1, "hit")
		if got := f.requests(); got != fmt.Sprintf("GET bytes=%d-%d", f.size-sliceBytes, f.size-1) || f.octets.Swap(0) != sliceBytes {
			t.Errorf("the origin was asked %s", got)
		}
		// Across the border of two slices.
		f.expect(t, w, fmt.Sprintf("%d-%d", 3*sliceBytes-5, 3*sliceBytes+4), 3*sliceBytes-5, 10, "hit")
		if got := f.requests(); strings.Count(got, "GET") != 2 {
			t.Errorf("the origin was asked %s", got)
		}
		status, h, _, _ := w.get("/film", "Range", fmt.Sprintf("bytes=%d-", f.size))
		if status != 416 || h.Get("Content-Range") != fmt.Sprintf("bytes */%d", f.size) || f.requests() != "" {
			t.Errorf("beyond the end: %d %v", status, h)
		}
	})
}

// RangeAmp: a hundred one-octet ranges with as many queries cost an octet each.
func TestRangesAreNotAmplified(t *testing.T) {
	f := newLargeFile(100 << 20)
	slicing(t, f, 0, func(t *testing.T, w *world) {
		for i := range 100 {
			if status, _, body, _ := w.get(fmt.Sprintf("/film?%d", i), "Range", "bytes=0-0"); status != 206 || len(body) != 1 {
				t.Fatalf("%d, %d octets", status, len(body))
			}
		}
		if n := f.octets.Load(); n > 100*sliceBytes {
			t.Errorf("%d octets from the origin", n)
		}
	})
}

// One fetch for a slice, however many clients want something of it at once.
func TestOneFetchForASlice(t *testing.T) {
	f := newLargeFile(10 << 30)
	f.delay = time.Second
	slicing(t, f, 0, func(t *testing.T, w *world) {
		for _, known := range []bool{false, true} {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { f.expectNow(t, w, "2097142-2097161", 2*sliceBytes-10, 20, "") })
			}
			wg.Wait()
			want := 1 // what was asked for
			if known {
				want = 0
			}
			if got := f.requests(); strings.Count(got, "GET") != want {
				t.Errorf("the origin was asked %s", got)
			}
		}
		var wg sync.WaitGroup
		for i := range int64(100) {
			wg.Go(func() {
				at := 100*sliceBytes + i*1000
				f.expectNow(t, w, fmt.Sprintf("%d-%d", at, at+999), at, 1000, "hit")
			})
		}
		wg.Wait()
		if got := f.requests(); strings.Count(got, "GET") != 1 {
			t.Errorf("the origin was asked %s", got)
		}
	})
}

// A large representation that is asked for whole comes from slices, each
// fetched once, and leaves half of the store to others.
func TestLargeFileFromSlices(t *testing.T) {
	f := newLargeFile(5<<20 + 12345)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { f.expectNow(t, w, "", 0, f.size, "") })
		}
		wg.Wait()
		if got := f.requests(); strings.Count(got, "bytes=") != 6 || strings.Count(got, "GET") != 7 {
			t.Errorf("the origin was asked %s", got)
		}
		f.expect(t, w, "", 0, f.size, "hit")
		f.expect(t, w, "1000000-5000000", 1000000, 4000001, "hit")
		status, h, _, _ := w.get("/film", "If-None-Match", `"v1"`)
		if got := f.requests(); got != "" || status != 304 {
			t.Errorf("asked again: %s; conditional: %d %v", got, status, h)
		}
		// Freshened by one condition, its slices stay.
		time.Sleep(2 * time.Minute)
		f.expect(t, w, "5-9", 5, 5, "fwd=stale")
		f.expect(t, w, "", 0, f.size, "hit")
		if got := f.requests(); got != "GET bytes=5-9" {
			t.Errorf("to freshen it the origin was asked %s", got)
		}
	})
	small := newLargeFile(12 << 20)
	slicing(t, small, 16<<20, func(t *testing.T, w *world) {
		page := &stored{key: "page", status: 200, size: 7 << 20}
		w.edge.store.put(page)
		small.expect(t, w, "", 0, small.size, "")
		synctest.Wait()
		s := w.edge.store
		s.mu.Lock()
		defer s.mu.Unlock()
		if sliced := s.queues.Bytes(filmSlices); s.live(page.at) == nil || sliced > 8<<20 || s.bytes > 16<<20 {
			t.Errorf("slices take %d of %d octets; the page is there: %v", sliced, s.bytes, s.live(page.at) != nil)
		}
	})
}

// http-checklist 11: parts of two representations are never combined. Before
// anything was sent the answer is made anew; after, it breaks off.
func TestSlicesOfAnotherRepresentation(t *testing.T) {
	f := newLargeFile(8 << 20)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "0-9", 0, 10, "fwd=uri-miss")
		f.etag.Store(`"v2"`)
		f.shift = 7
		f.expect(t, w, "5000000-5000009", 5000000, 10, "fwd=")
		f.expect(t, w, "0-9", 0, 10, "hit")
		f.expect(t, w, "5000000-6000009", 5000000, 1000010, "hit")
		f.requests()

		resp, err := w.client.RoundTrip(mustGet("http://shop.test/film"))
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(resp.Body, make([]byte, 1000))
		synctest.Wait()
		f.etag.Store(`"v3"`)
		f.shift = 9
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil || int64(len(body)) >= f.size-1000 {
			t.Errorf("changed in the middle: %d octets, %v", len(body), err)
		}
		f.expect(t, w, "", 0, f.size, "fwd=")
	})
}

func mustGet(url string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// An origin that ignores If-Range gives a slice of the new representation: it
// is not taken for one of the old, nor is one of another length.
func TestSlicesOfACarelessOrigin(t *testing.T) {
	for _, change := range []func(f *largeFile){
		func(f *largeFile) { f.etag.Store(`"v2"`) },
		func(f *largeFile) { f.size += 10 },
	} {
		f := newLargeFile(4 << 20)
		f.careless = true
		slicing(t, f, 64<<20, func(t *testing.T, w *world) {
			f.expect(t, w, "0-9", 0, 10, "fwd=uri-miss")
			change(f)
			f.shift = 7
			f.expect(t, w, "3000000-3000009", 3000000, 10, "fwd=")
			f.expect(t, w, "0-9", 0, 10, "hit")
		})
	}
}

// Two servers behind one name may tag a file differently, and a server may give
// less of a range than it was asked for: then no slices come together, and
// clients get the file all the same.
func TestSlicesThatNeverCome(t *testing.T) {
	for _, spoil := range []func(f *largeFile){
		func(f *largeFile) { f.flaps = true },
		func(f *largeFile) { f.most = 1000 },
	} {
		f := newLargeFile(8 << 20)
		spoil(f)
		slicing(t, f, 16<<20, func(t *testing.T, w *world) {
			f.expect(t, w, "", 0, f.size, "fwd=partial")
			f.expect(t, w, "3000000-3000009", 3000000, 10, "fwd=")
		})
	}
}

// A weak validator, or none, combines nothing: the part that came is used for
// what it covers, and a whole is passed through.
func TestNoSlicesWithoutStrongValidator(t *testing.T) {
	for _, tag := range []string{"", `W/"v1"`} {
		f := newLargeFile(4 << 20)
		f.etag.Store(tag)
		slicing(t, f, 16<<20, func(t *testing.T, w *world) {
			f.expect(t, w, "100-199", 100, 100, "fwd=uri-miss")
			f.expect(t, w, "150-159", 150, 10, "hit")
			f.expect(t, w, "190-209", 190, 20, "fwd=partial")
			f.expect(t, w, "", 0, f.size, "fwd=partial")
			if got := f.requests(); got != "GET bytes=100-199, GET bytes=190-209, GET" {
				t.Errorf("the origin was asked %s", got)
			}
		})
	}
	// A strong Last-Modified is a strong validator too.
	f := newLargeFile(4 << 20)
	f.etag.Store("")
	f.modified = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	slicing(t, f, 16<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "100-199", 100, 100, "fwd=uri-miss")
		f.expect(t, w, "190-209", 190, 20, "hit")
		f.expect(t, w, "", 0, f.size, "hit")
		if got := f.requests(); strings.Count(got, "GET bytes=") != 5 {
			t.Errorf("the origin was asked %s", got)
		}
	})
}

// An origin that knows no ranges: a small whole is stored, a large one passes.
func TestOriginWithoutRanges(t *testing.T) {
	f := newLargeFile(9 << 20)
	f.ignores = true
	slicing(t, f, 64<<20, func(t *testing.T, w *world) {
		status, _, body, _ := w.get("/film", "Range", "bytes=5-9")
		if status != 200 || int64(len(body)) != f.size || w.edge.store.bytes != 0 {
			t.Errorf("%d, %d octets; %d stored", status, len(body), w.edge.store.bytes)
		}
	})
	small := newLargeFile(1000)
	small.ignores = true
	slicing(t, small, 64<<20, func(t *testing.T, w *world) {
		small.expect(t, w, "5-9", 5, 5, "stored")
		small.expect(t, w, "", 0, small.size, "hit")
	})
}

// What is small becomes whole: by the part that is all, or when all is asked for.
func TestPartOfASmallFile(t *testing.T) {
	f := newLargeFile(1000)
	slicing(t, f, 64<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "5-9", 5, 5, "stored")
		f.expect(t, w, "7-8", 7, 2, "hit")
		f.expect(t, w, "", 0, 1000, "fwd=partial")
		f.expect(t, w, "", 0, 1000, "hit")
		f.expect(t, w, "500-", 500, 500, "hit")
		if got := f.requests(); got != "GET bytes=5-9, GET" {
			t.Errorf("the origin was asked %s", got)
		}
		w.edge.Purge(Purge{All: true})
		f.expect(t, w, "500-", 500, 500, "fwd=uri-miss") // longer than it could be: the first slice
		synctest.Wait()
		f.expect(t, w, "", 0, 1000, "hit")
		if got := f.requests(); got != "GET bytes=0-1048575" {
			t.Errorf("the origin was asked %s", got)
		}
	})
}

// A hard purge covers slices, fetched and under way; a soft one costs a condition.
func TestPurgeOfSlices(t *testing.T) {
	f := newLargeFile(20 << 20)
	slicing(t, f, 64<<20, func(t *testing.T, w *world) {
		f.expect(t, w, "0-2000000", 0, 2000001, "")
		f.expect(t, w, "1000000-2000000", 1000000, 1000001, "hit")
		f.requests()
		w.edge.Purge(Purge{URL: "http://shop.test/film", Soft: true})
		f.expect(t, w, "1000000-2000000", 1000000, 1000001, "fwd=stale")
		if got := f.requests(); strings.Count(got, "GET") != 1 {
			t.Errorf("after a soft purge: %s", got)
		}
		w.edge.Purge(Purge{URL: "http://shop.test/film"})
		f.shift = 3 // under the same validator: only the purge can tell
		f.expect(t, w, "1000000-2000000", 1000000, 1000001, "fwd=uri-miss")
		f.expect(t, w, "0-2000000", 0, 2000001, "hit")
	})
}

// Random ranges over a file that is larger than the store, with the octets
// that are expected; the seed is printed.
func TestRandomRanges(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	f := newLargeFile(3<<20 + 77)
	slicing(t, f, 4<<20, func(t *testing.T, w *world) {
		for range 40 {
			start := random.Int64N(f.size)
			n := min(1+random.Int64N(2<<20), f.size-start)
			f.expect(t, w, fmt.Sprintf("%d-%d", start, start+n-1), start, n, "")
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	})
}

func TestFirstRange(t *testing.T) {
	for v, want := range map[string]string{
		"bytes=0-0": "bytes=0-0 true true", "bytes=5-1048580": "bytes=5-1048580 true true", "bytes = 5-9": "bytes=5-9 true true",
		"bytes=5-1048581": "bytes=0-1048575 false true", "bytes=0-": "bytes=0-1048575 false true", "bytes=1048577-": "bytes=1048576-2097151 false true",
		"bytes=-5": "bytes=-5 true true", "bytes=-1048577": " false false", "bytes=0-1,5-6": " false false", "bytes=9-5": " false false",
		"bytes=a-b": " false false", "lines=1-2": " false false", "bytes=-": " false false", "": " false false", "bytes=": " false false",
	} {
		field, exact, ok := firstRange(v)
		if got := fmt.Sprint(field, " ", exact, " ", ok); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}
