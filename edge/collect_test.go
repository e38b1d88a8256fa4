package edge

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"perigee.example/internal/arena"
)

// fillStore stores n pages of 1 KiB as a site of today sends them.
func fillStore(t testing.TB, s *store, n int) {
	site, now := &Site{Name: "shop"}, time.Now()
	page := make([]byte, 1024)
	for i := range n {
		o := newStored(site, 200, http.Header{
			"Cache-Control": {"public, max-age=3600"}, "Content-Type": {"text/html; charset=utf-8"}, "Etag": {fmt.Sprintf(`"%016x"`, i)},
			"Last-Modified": {"Mon, 23 Nov 2026 12:00:00 GMT"}, "Date": {"Tue, 24 Nov 2026 12:00:00 GMT"}, "Vary": {"Accept-Encoding"}, "Server": {"origin"},
		}, now, now)
		o.key = fmt.Sprintf("http://shop.example.com/articles/%d.html", i)
		o.scopes = purgeScopes{site: "shop", resource: o.key[len("http://"):]}
		o.sel = []selecting{{name: "Accept-Encoding", value: "gzip", sent: "gzip, deflate, br", present: true}}
		o.pack()
		b := s.arena.Build()
		if !b.Write(page) {
			t.Fatal("no room")
		}
		o.body, o.size = b.End(int64(len(page))), int64(len(page))
		if !s.put(o) {
			t.Fatalf("page %d is not stored", i)
		}
		s.arena.Release(o.body)
	}
}

// TestCollectorFollowsNothing: what is stored is no object of the Go heap, however
// much it is, and takes no more memory than it is charged for.
func TestCollectorFollowsNothing(t *testing.T) {
	const n = 40_000
	s := testStore(t, 256<<20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	fillStore(t, s, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	objects := int64(after.HeapObjects) - int64(before.HeapObjects)
	if objects > n/20 {
		t.Errorf("%d objects of the heap for %d pages", objects, n)
	}
	heap, mapped := (int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, s.arena.Stats().Used/n
	units := arena.Footprint(1024) // the body's own
	t.Logf("a page of 1 KiB takes %d octets of the arena and %d of the heap, %d beside its body; it is charged %d", mapped, heap, mapped+heap-units, s.bytes/n)
	if mapped+heap > s.bytes/n && !raceEnabled {
		t.Errorf("a page takes %d octets and is charged %d", mapped+heap, s.bytes/n)
	}
	runtime.KeepAlive(s)
}

// BenchmarkCollect is a cycle of the collector beside a store of 10 and of a
// million pages.
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := testStore(b, 4<<30)
			fillStore(b, s, n)
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			for b.Loop() {
				runtime.GC()
			}
			b.ReportMetric(float64(m.HeapObjects), "objects")
			b.ReportMetric(float64(s.arena.Stats().Used)/float64(n), "arena-octets/page")
			b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "heap-MiB")
			runtime.KeepAlive(s)
		})
	}
}
