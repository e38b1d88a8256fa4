package zones

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// bigZone is a zone of n hosts with an address each.
func bigZone(n int) []byte {
	var b strings.Builder
	b.WriteString(lintBase)
	for i := range n {
		fmt.Fprintf(&b, "host%d A 192.0.2.%d\n", i, i&255)
	}
	return []byte(b.String())
}

func BenchmarkLoad(b *testing.B) {
	const names = 100_000
	path := filepath.Join(b.TempDir(), "example.test.zone")
	if err := os.WriteFile(path, bigZone(names), 0o644); err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var z *Zone
	for b.Loop() {
		if z, _ = Load(path, Options{Origin: "example.test"}); z == nil {
			b.Fatal("the zone does not load")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/names, "ns/name")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/names, "B/name")
	runtime.KeepAlive(z)
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		z, _ := Parse("x.zone", bigZone(n), Options{Origin: "example.test"})
		if z == nil {
			b.Fatal("the zone does not load")
		}
		for _, kind := range []string{"found", "nxdomain", "deep"} {
			b.Run(fmt.Sprintf("%d/%s", n, kind), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				names := make([][]byte, 1<<16)
				for i := range names {
					name := fmt.Sprintf("host%d.example.test.", rng.IntN(n))
					switch kind {
					case "nxdomain":
						name = "x" + name
					case "deep":
						name = strings.Repeat("a.", 110) + name
					}
					names[i], _ = ParseName(name)
				}
				var r Result
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					z.Lookup(names[i&(1<<16-1)], typeA, &r)
					i++
				}
			})
		}
	}
}

// BenchmarkCollect is a cycle of the garbage collector beside a zone of so many
// names: how many should make no difference. PERIGEE_BIG has 10 million.
func BenchmarkCollect(b *testing.B) {
	sizes := []int{1_000_000}
	if os.Getenv("PERIGEE_BIG") != "" {
		sizes = append(sizes, 10_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			z, _ := Parse("x.zone", bigZone(n), Options{Origin: "example.test", MaxRecords: n + 10})
			if z == nil {
				b.Fatal("the zone does not load")
			}
			runtime.GC()
			for b.Loop() {
				runtime.GC()
			}
			b.ReportMetric(float64(len(z.base.arena)+4*len(z.base.order)+4*len(z.base.slots))/float64(n), "B/name")
			runtime.KeepAlive(z)
		})
	}
}
