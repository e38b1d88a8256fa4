package policy

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"perigee.example/internal/bigmem"
)

// TestTableMemory: a large table lies outside of the Go heap, says what it said
// inside, and is given back when nobody has it any more.
func TestTableMemory(t *testing.T) {
	r, err := bigmem.Reserve(hugePage, true)
	if err != nil {
		t.Skip("no memory outside of the Go heap here: ", err)
	}
	r.Free()
	const alternating = 400_000
	f, runs := families[0], []run[uint16](nil)
	for i := range uint64(alternating) {
		runs = extend(runs, i+1, uint16(i%2))
	}
	runs = extend(runs, f.units(), 2)
	blocks := 0
	cut(f, runs, func(uint64, int, uint16) { blocks++ })
	a := &atlas{four: newTable[uint32](f, runs, blocks, 3)}
	if a.four.memory == nil {
		t.Fatalf("%d blocks are still Go memory", blocks)
	}
	gone := make(chan struct{})
	runtime.AddCleanup(a.four.memory, func(gone chan struct{}) { close(gone) }, gone)
	for i := range uint64(alternating) {
		if i%40_000 == 0 {
			runtime.GC() // takes nothing that is in use
		}
		client := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i)}), MaxBits4)
		if got, want := a.locate(client), (area{uint16(i % 2), MaxBits4, i, MaxBits4}); got != want {
			t.Fatalf("%v: %+v, want %+v", client, got, want)
		}
	}
	if got := a.locate(mustPrefix("255.255.255.0/24")); got.region != 2 || got.scope >= MaxBits4 {
		t.Errorf("behind them: %+v", got)
	}
	runtime.KeepAlive(a)
	a = nil
	for range 1000 {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Error("the memory of a table that nobody has was not given back")
}
