package edge

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// diskWorld is an edge with a disk tier that can be started again, before an
// origin that counts.
type diskWorld struct {
	t      *testing.T
	dir    string
	sites  []Site
	edge   *Edge
	hits   atomic.Int64 // requests to the origin
	answer http.HandlerFunc
	skew   time.Duration // of the wall clock, from the next start on
	before func(e *Edge) // before the tier is opened
}

// pageOf is the body of a path: no two are alike.
func pageOf(path string, n int) []byte {
	return bytes.Repeat([]byte(path+"\n"), n/(len(path)+1)+1)[:n]
}

func newDiskWorld(t *testing.T) *diskWorld {
	w := &diskWorld{t: t, dir: filepath.Join(t.TempDir(), "cache")}
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Cache-Control", "max-age=3600")
		h.Set("Etag", `"`+r.URL.Path+`"`)
		h.Set("Cache-Tag", "all")
		if r.Header.Get("If-None-Match") == h.Get("Etag") {
			rw.WriteHeader(http.StatusNotModified)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/vary") {
			h.Set("Vary", "Accept-Language")
			h.Del("Etag")
			rw.Write(pageOf(r.URL.Path+r.Header.Get("Accept-Language"), 3000))
			return
		}
		rw.Write(pageOf(r.URL.Path, 3000))
	}
	w.sites = []Site{{Name: "shop", Hosts: []string{"shop.test"}, Origin: HandlerTransport(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.hits.Add(1)
		w.answer(rw, r)
	}))}}
	w.start()
	t.Cleanup(func() { w.edge.Close() })
	return w
}

func (w *diskWorld) start() {
	w.t.Helper()
	skew := w.skew
	e, err := New(Config{Name: "fra1", Sites: w.sites, MemoryBytes: 8 << 20, Limits: &Limits{Told: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
		Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Now: func() time.Time { return time.Now().Add(skew) }})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.before != nil {
		w.before(e)
	}
	if err := e.OpenDisk(DiskConfig{Dir: w.dir, Bytes: 64 << 20, SegmentBytes: 8 << 20}); err != nil {
		w.t.Fatal(err)
	}
	w.edge = e
}

// restart ends the process and starts another: in order, or by a kill, of which
// the copy of the folder at that moment is what is left.
func (w *diskWorld) restart(kill bool) {
	w.t.Helper()
	if kill {
		w.dir = asKilled(w.t, w.dir, w.t.TempDir())
	}
	w.edge.Close()
	w.start()
}

// do sends a request; its body is what it should be, or the test ends.
func (w *diskWorld) do(method, path string, fields ...string) *http.Response {
	w.t.Helper()
	r := httptest.NewRequest(method, "http://shop.test"+path, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	rec := httptest.NewRecorder()
	w.edge.ServeHTTP(rec, r)
	return rec.Result()
}

// get is a GET whose body must be whole and right. how is what Cache-Status must
// hold; origin how many requests that costs the origin.
func (w *diskWorld) get(path string, origin int64, how string, fields ...string) {
	w.t.Helper()
	before, flying := w.hits.Load(), w.flying()
	resp := w.do("GET", path, fields...)
	w.landed(flying)
	body, _ := io.ReadAll(resp.Body)
	want := pageOf(path, 3000)
	if strings.HasPrefix(path, "/vary") {
		want = pageOf(path+strings.Join(fields[1:], ""), 3000)
	}
	if resp.StatusCode != 200 || !bytes.Equal(body, want) {
		w.t.Errorf("GET %s: %d with %d octets", path, resp.StatusCode, len(body))
	}
	if got := w.hits.Load() - before; got != origin || !strings.Contains(resp.Header.Get("Cache-Status"), how) {
		w.t.Errorf("GET %s: %d requests to the origin, want %d; Cache-Status: %s, want %s", path, got, origin, resp.Header.Get("Cache-Status"), how)
	}
}

// flying is how many fetches and watches are under way.
func (w *diskWorld) flying() int {
	f := &w.edge.flights
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// landed returns when no more than n are under way: what a fetch brought may
// still be on its way to memory when its client has it.
func (w *diskWorld) landed(n int) {
	w.t.Helper()
	for range 5000 {
		if w.flying() <= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatal("a fetch does not end")
}

// settle returns when what has proved itself is on disk.
func (w *diskWorld) settle() {
	w.t.Helper()
	d := w.edge.disk.Load()
	for i := 0; ; i++ {
		select {
		case key := <-d.wanted:
			d.write(key)
			continue
		default:
		}
		break
	}
	d.mu.Lock() // and what the edge's own goroutine took
	log := d.log.Load()
	d.mu.Unlock()
	log.Flush()
}

// warm brings a path to disk: asked for twice.
func (w *diskWorld) warm(path string, fields ...string) {
	w.t.Helper()
	w.get(path, 1, "fwd=", fields...)
	w.onDisk(path, fields...)
}

// onDisk asks for what is stored until that is on disk.
func (w *diskWorld) onDisk(path string, fields ...string) {
	w.t.Helper()
	for range 5000 {
		w.get(path, 0, "", fields...)
		w.settle()
		if _, ok := w.edge.disk.Load().has(keyOf(w.t, "http://shop.test"+path)); ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatalf("%s is not on disk", path)
}

func keyOf(t *testing.T, url string) string {
	t.Helper()
	target, err := parseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return target.key()
}

func TestDiskRestart(t *testing.T) {
	for _, kill := range []bool{false, true} {
		w := newDiskWorld(t)
		w.get("/once", 1, "fwd=")
		for i := range 20 {
			w.warm(fmt.Sprint("/page", i))
		}
		w.warm("/vary", "Accept-Language", "de")
		w.get("/vary", 1, "fwd=vary-miss", "Accept-Language", "fr")
		w.get("/vary", 0, "", "Accept-Language", "fr")
		w.settle()
		w.restart(kill)
		for i := range 20 {
			w.get(fmt.Sprint("/page", i), 0, "hit; ttl=3")
		}
		w.get("/page1", 0, "hit")
		w.get("/once", 1, "fwd=uri-miss")
		w.get("/vary", 1, "fwd=", "Accept-Language", "it")
		w.get("/vary", 0, "hit", "Accept-Language", "de")
		st := w.edge.Stats()
		if !st.Disk.On || st.Disk.Why != "" || st.Disk.Hits != 21 || st.Disk.Corrupt != 0 || st.Disk.Records < 21 {
			t.Errorf("kill %v: %+v", kill, st.Disk)
		}
	}
}

// What comes from the disk is used by the rules for what memory has.
func TestDiskRules(t *testing.T) {
	w := newDiskWorld(t)
	w.warm("/page")
	check := func(what string, status int, body string, resp *http.Response) {
		t.Helper()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status || body != string(b) || !strings.Contains(resp.Header.Get("Cache-Status"), "detail=disk") || resp.Header.Get("Age") == "" {
			t.Errorf("%s: %d, %d octets, %v", what, resp.StatusCode, len(b), resp.Header)
		}
	}
	page := string(pageOf("/page", 3000))
	ask := func(method string, fields ...string) *http.Response {
		t.Helper()
		w.restart(false)
		before := w.hits.Load()
		resp := w.do(method, "/page", fields...)
		if w.hits.Load() != before {
			t.Errorf("%s %v went to the origin", method, fields)
		}
		return resp
	}
	check("GET", 200, page, ask("GET"))
	check("HEAD", 200, "", ask("HEAD"))
	check("If-None-Match", 304, "", ask("GET", "If-None-Match", `"/page"`))
	check("Range", 206, page[10:20], ask("GET", "Range", "bytes=10-19"))
	check("If-Match", 200, page, ask("GET", "If-Match", `"/page"`))
	w.restart(false)
	w.get("/page", 1, "fwd=request; fwd-status=200; key", "If-Match", `"other"`) // the origin's to judge
	w.restart(false)
	w.get("/page", 1, "fwd=request", "Authorization", "Basic x")
}

// A purge, of whatever scope and whoever's, holds for what is on disk, before a
// restart and after it: of an edge with a feed whose journal says it again, and
// of one without.
func TestDiskPurge(t *testing.T) {
	for name, p := range map[string]Purge{
		"url": {URL: "http://shop.test/a/page"}, "prefix": {Prefix: "http://shop.test/a"}, "tag": {Site: "shop", Tag: "all"},
		"site": {Site: "shop", All: true}, "all": {All: true},
	} {
		for _, soft := range []bool{false, true} {
			for _, seq := range []uint64{0, 7} {
				for _, how := range []string{"running", "restart", "kill", "kill, and the journal lost"} {
					t.Run(fmt.Sprintf("%s, soft %v, seq %d, %s", name, soft, seq, how), func(t *testing.T) {
						t.Parallel() // most of it is waiting for the disk
						p := p
						w := newDiskWorld(t)
						w.edge.SetApplied(3, testLog)
						w.warm("/a/page")
						p.Soft, p.Seq = soft, seq
						purged(t, w.edge, p)
						w.warm("/b") // from after it
						w.before = func(e *Edge) {
							if seq != 0 && how != "kill, and the journal lost" { // as a node does
								e.SetApplied(3, testLog)
								purged(t, e, p)
							}
						}
						switch how {
						case "running": // and memory has lost it
							w.edge.store.remove(keyOf(t, "http://shop.test/a/page"))
						default:
							w.restart(how != "restart")
						}
						want := "fwd=uri-miss"
						if soft {
							want = "fwd=stale"
						}
						w.get("/a/page", 1, want)
						w.get("/a/page", 0, "")
						if how != "kill, and the journal lost" || seq == 0 || name == "url" || name == "prefix" {
							w.get("/b", 0, "hit") // else nobody knows that it is from after the purge
						}
					})
				}
			}
		}
	}
}

// What an unsafe request has invalidated does not come back.
func TestDiskInvalidated(t *testing.T) {
	for _, kill := range []bool{false, true} {
		w := newDiskWorld(t)
		w.warm("/page")
		w.warm("/other")
		w.do("POST", "/page")
		w.restart(kill)
		w.get("/page", 1, "fwd=uri-miss")
		w.get("/other", 0, "hit")
		// Nor what a client had fetched anew.
		w.answer = func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Cache-Control", "no-store")
			rw.Write(pageOf("/other", 3000))
		}
		w.edge.store.remove(keyOf(t, "http://shop.test/other"))
		w.do("POST", "/other")
		w.get("/other", 1, "fwd=uri-miss")
		w.restart(kill)
		w.get("/other", 1, "fwd=uri-miss")
	}
}

// Nor what is being read from the disk meanwhile.
func TestDiskInvalidatedMeanwhile(t *testing.T) {
	w := newDiskWorld(t)
	w.warm("/page")
	w.restart(false)
	d, key := w.edge.disk.Load(), keyOf(t, "http://shop.test/page")
	watch := w.edge.watch(key)
	defer w.edge.unwatch(watch)
	o, at := d.find(d.log.Load(), &w.sites[0], key, headerFields{})
	if o == nil {
		t.Fatal("it is not on disk")
	}
	defer at.Close()
	w.do("POST", "/page")
	if d.bring(w.edge, o, at, watch) {
		t.Error("what was invalidated is used")
	}
	if got, _ := w.edge.store.get([]byte(key), headerFields{}); got != nil {
		t.Error("what was invalidated is in memory")
	}
}

// What comes back from the disk is read into its place: a large one takes no
// memory beside the store's.
func TestDiskIntoPlace(t *testing.T) {
	w := newDiskWorld(t)
	const size = 900<<10 + 7
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=3600")
		rw.Write(pageOf(r.URL.Path, size))
	}
	key := keyOf(t, "http://shop.test/large")
	for onDisk := false; !onDisk; _, onDisk = w.edge.disk.Load().has(key) {
		w.do("GET", "/large")
		w.landed(0)
		w.settle()
	}
	w.restart(false)
	d := w.edge.disk.Load()
	o, at := d.find(d.log.Load(), &w.sites[0], key, headerFields{})
	if o == nil {
		t.Fatal("it is not on disk")
	}
	defer at.Close()
	watch := w.edge.watch(key)
	defer w.edge.unwatch(watch)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ok := d.bring(w.edge, o, at, watch)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; !ok || n > size/2 {
		t.Errorf("brought: %v; %d octets of Go memory for %d", ok, n, size)
	}
	w.edge.store.letGo(o)
	if body, _ := io.ReadAll(w.do("GET", "/large").Body); !bytes.Equal(body, pageOf("/large", size)) {
		t.Errorf("%d octets", len(body))
	}
}

// Nor what is about to be written to the disk meanwhile; and what is found there
// before is doomed, since it is looked for there before it is used.
func TestDiskInvalidatedWhileWritten(t *testing.T) {
	w := newDiskWorld(t)
	w.get("/page", 1, "fwd=")
	d, key := w.edge.disk.Load(), keyOf(t, "http://shop.test/page")
	list := w.edge.store.variants(key)
	written := make(chan struct{})
	d.remove(key, func() {
		if _, ok := d.has(key); ok {
			t.Error("it is forgotten in memory first, and can come back from the disk")
		}
		go func() {
			d.writeOne(diskKey(key), key, list[0])
			close(written)
		}()
		select {
		case <-written:
			t.Error("it is written while it is being removed")
		case <-time.After(20 * time.Millisecond):
		}
		w.edge.doom(key, nil)
		w.edge.store.remove(key)
	})
	<-written
	w.edge.store.letGo(list...)
	d.log.Load().Flush()
	w.get("/page", 1, "fwd=uri-miss")
}

// What memory has is not replaced by what the disk had of it.
func TestDiskIsOlder(t *testing.T) {
	w := newDiskWorld(t)
	w.warm("/page")
	d, key := w.edge.disk.Load(), keyOf(t, "http://shop.test/page")
	o, at := d.find(d.log.Load(), &w.sites[0], key, headerFields{})
	if o == nil {
		t.Fatal("it is not on disk")
	}
	at.Close()
	if w.edge.store.put(o) {
		t.Error("it is replaced")
	}
}

// Where the log may have lost a removal, everything is validated first.
func TestDiskSuspect(t *testing.T) {
	w := newDiskWorld(t)
	w.warm("/page")
	w.edge.Close()
	if err := os.WriteFile(filepath.Join(w.dir, "state"), []byte("perigee-seglog 1 open another-boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.get("/page", 1, "fwd=stale; fwd-status=304")
	w.onDisk("/page")
	w.restart(false)
	w.get("/page", 0, "hit")
}

// A process whose successor has died has its second tier again; and what was
// changed through that one, or may have been, is validated before it is used.
func TestDiskTakenBack(t *testing.T) {
	w := newDiskWorld(t)
	for _, path := range []string{"/page", "/changed", "/other"} {
		w.warm(path)
	}
	old := w.edge
	old.CloseDisk()
	w.start()
	w.do("POST", "/changed")
	w.edge.Close()
	w.edge = old
	old.TakeBack()
	if old.disk.Load().log.Load() == nil {
		t.Fatal("the second tier stays closed")
	}
	w.get("/changed", 1, "fwd=stale; fwd-status=304") // memory had it
	old.store.remove(keyOf(t, "http://shop.test/page"))
	w.get("/page", 1, "fwd=stale; fwd-status=304") // and the disk has this one
	w.warm("/new")
	w.restart(false)
	w.get("/new", 0, "detail=disk")
	w.get("/other", 1, "fwd=stale; fwd-status=304")
}

// What a site would not store today is not used, though it was stored yesterday.
func TestDiskSites(t *testing.T) {
	w := newDiskWorld(t)
	w.sites[0].ShareSetCookie = true
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=3600")
		rw.Header().Set("Set-Cookie", "a=b")
		rw.Write(pageOf(r.URL.Path, 3000))
	}
	w.restart(false)
	w.warm("/page")
	w.restart(false)
	w.get("/page", 0, "hit")
	w.sites[0].ShareSetCookie = false
	w.restart(false)
	w.get("/page", 1, "fwd=uri-miss")
	w.sites[0].ShareSetCookie = true
	w.sites[0].KeyFields = []string{"X-Device"}
	w.restart(false)
	w.get("/page", 1, "fwd=uri-miss")
	w.sites[0].Name, w.sites[0].KeyFields = "other", nil
	w.restart(false)
	w.get("/page", 1, "fwd=uri-miss")
}

// F14: a wall clock that goes back makes nothing younger.
func TestDiskClock(t *testing.T) {
	for _, c := range []struct {
		skew  time.Duration
		usual bool
	}{{-time.Hour, false}, {-365 * 24 * time.Hour, false}, {30 * time.Minute, true}, {2 * time.Hour, false}, {365 * 24 * time.Hour, false}} {
		w := newDiskWorld(t)
		w.warm("/page")
		w.skew = c.skew
		w.restart(false)
		if c.usual {
			w.get("/page", 0, "hit; ttl=1")
		} else {
			w.get("/page", 1, "fwd=stale; fwd-status=304")
		}
		w.get("/page", 0, "")
	}
}

// F7: whatever happens to the files, no wrong octet is served.
func TestDiskRot(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	w := newDiskWorld(t)
	for i := range 100 {
		w.warm(fmt.Sprint("/page", i))
	}
	var damaged uint64
	for round := range 4 {
		w.edge.Close()
		names, _ := filepath.Glob(filepath.Join(w.dir, "*.seg"))
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil || len(b) < 1000 {
				continue
			}
			used := len(bytes.TrimRight(b, "\x00")) // a segment has its full size from the start
			for range 30 {
				b[r.IntN(used)] ^= 1 << r.IntN(8)
			}
			os.WriteFile(name, b, 0o600)
		}
		if round%2 == 1 {
			os.Truncate(names[len(names)-1], 5000)
		}
		w.start()
		for i := range 100 {
			path := fmt.Sprint("/page", i)
			resp := w.do("GET", path)
			w.landed(0)
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !bytes.Equal(b, pageOf(path, 3000)) {
				t.Fatalf("%s: %d with %d octets", path, resp.StatusCode, len(b))
			}
			w.onDisk(path)
		}
		damaged += w.edge.Stats().Disk.Corrupt
	}
	if damaged == 0 {
		t.Error("no damage was counted")
	}
}

// A response larger than memory keeps goes to disk as it passes through, and is
// given out from there: whole and in ranges, after a restart too.
func TestDiskLarge(t *testing.T) {
	const size = 6<<20 + 5
	w := newDiskWorld(t)
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=3600")
		rw.Header().Set("Content-Length", strconv.Itoa(size))
		if r.Method == http.MethodGet {
			rw.Write(pageOf(r.URL.Path, size))
		}
	}
	check := func(origin int64, fields ...string) {
		t.Helper()
		want, status := pageOf("/film", size), 200
		if len(fields) > 0 {
			want, status = want[3<<20:5<<20], 206
		}
		before := w.hits.Load()
		resp := w.do("GET", "/film", fields...)
		w.landed(0)
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != status || !bytes.Equal(b, want) {
			t.Errorf("%v: %d with %d octets", fields, resp.StatusCode, len(b))
		}
		if n := w.hits.Load() - before; n != origin {
			t.Errorf("%v: %d requests to the origin, want %d: %s", fields, n, origin, resp.Header.Get("Cache-Status"))
		}
	}
	check(1)
	w.edge.disk.Load().log.Load().Flush()
	ranged := []string{"Range", fmt.Sprintf("bytes=%d-%d", 3<<20, 5<<20-1)}
	check(0)
	check(0, ranged...)
	if resp := w.do("HEAD", "/film"); resp.StatusCode != 200 || resp.ContentLength != size {
		t.Errorf("HEAD: %d, %v", resp.StatusCode, resp.Header)
	}
	w.restart(true)
	check(0, ranged...)
	check(0)
	w.do("POST", "/film")
	check(1)
	w.edge.disk.Load().log.Load().Flush()
	check(0)
	// Damage in the first octets is a miss, of which the client hears nothing.
	names, _ := filepath.Glob(filepath.Join(w.dir, "*.seg"))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		for i := range b {
			if i%1000 == 999 {
				b[i] ^= 1
			}
		}
		f, _ := os.OpenFile(name, os.O_WRONLY, 0)
		f.WriteAt(b[1<<20:], 1<<20)
		f.WriteAt(b[2000:1<<20], 2000)
		f.Close()
	}
	check(1)
}

// Slices of a film are kept as other responses are: when they are fetched again.
func TestDiskSlices(t *testing.T) {
	const size = 20<<20 + 7
	film := pageOf("/film", size)
	w := newDiskWorld(t)
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=3600")
		rw.Header().Set("Etag", `"film"`)
		http.ServeContent(rw, r, "film", time.Time{}, bytes.NewReader(film))
	}
	watch := func() int64 {
		t.Helper()
		before := w.hits.Load()
		resp := w.do("GET", "/film")
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !bytes.Equal(b, film) {
			t.Errorf("%d with %d octets", resp.StatusCode, len(b))
		}
		w.settle()
		return w.hits.Load() - before
	}
	if n := watch(); n < 20 {
		t.Errorf("the first time cost %d requests", n)
	}
	watch() // memory has lost most of it; now it is written
	watch()
	if n := watch(); n > 8 {
		t.Errorf("the fourth time cost %d requests: %+v", n, w.edge.Stats().Disk)
	}
	w.restart(true)
	if n := watch(); n > 8 {
		t.Errorf("after a restart it cost %d requests: %+v", n, w.edge.Stats().Disk)
	}
}

// A process that takes over waits for the disk of the one before, and remembers
// what is purged and invalidated meanwhile.
func TestDiskTakenOver(t *testing.T) {
	w := newDiskWorld(t)
	w.warm("/page")
	w.warm("/other")
	w.warm("/posted")
	old := w.edge
	w.start()
	w.get("/page", 1, "fwd=uri-miss")
	w.do("POST", "/posted")
	purged(t, w.edge, Purge{URL: "http://shop.test/other"})
	if why := w.edge.Stats().Disk.Why; why == "" {
		t.Error("the disk of another process is in use")
	}
	old.CloseDisk()
	w.do("GET", "/third")
	for i := 0; w.edge.Stats().Disk.Why != ""; i++ {
		if i > 30_000 {
			t.Fatal("the disk is not taken over")
		}
		time.Sleep(time.Millisecond)
	}
	old.Close()
	w.get("/posted", 1, "fwd=uri-miss")
	w.get("/other", 1, "fwd=uri-miss")
	w.restart(true)
	w.get("/other", 1, "fwd=uri-miss")
}
