package arena

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func newArena(t testing.TB, n int64) *Arena {
	t.Helper()
	a, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// content is size octets that only this id has.
func content(id uint64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(id>>(8*(i%8))) ^ byte(i/8)
	}
	return b
}

func read(a *Arena, e Extent, size int) []byte {
	var out []byte
	for at := e.First(); at != 0 && len(out) < size; {
		var p []byte
		p, at = a.Read(at)
		out = append(out, p...)
	}
	if len(out) < size {
		return nil
	}
	return out[:size]
}

// build makes an extent in pieces of random size, with too much asked for at the end.
func build(a *Arena, b []byte, rng *rand.Rand) (Extent, bool) {
	w := a.Build()
	size := int64(len(b))
	for len(b) > 0 {
		mem := w.Next(len(b) + rng.IntN(2)*rng.IntN(5000))
		if mem == nil {
			w.Drop()
			return 0, false
		}
		b = b[copy(mem, b):]
	}
	if rng.IntN(4) == 0 {
		w.Next(1 + rng.IntN(100_000)) // and nothing comes
	}
	return w.End(size), true
}

// check holds the arena's own books against each other: every unit is in one
// block, free halves are joined, lists and counts agree.
func check(t testing.TB, a *Arena) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	cold := map[uint32]bool{}
	for _, s := range a.cold {
		cold[s] = true
	}
	listed := map[uint32]int{}
	whole := 0
	for order, first := range a.free {
		prev := uint32(0)
		for at := first; at != 0; {
			m, i := a.at(at - 1)
			if m.kind[i] != freeBit|uint8(order) || m.refs[i].Load() != prev {
				t.Fatalf("unit %d in the list of order %d: kind %#x, before it %d, not %d", at-1, order, m.kind[i], m.refs[i].Load(), prev)
			}
			listed[at-1] = order
			if order == maxOrder {
				whole++
			}
			prev, at = at, m.next[i]
		}
	}
	if whole != a.whole {
		t.Fatalf("%d whole slabs are free, %d counted", whole, a.whole)
	}
	var used int64
	for s := range a.slabs {
		if cold[uint32(s)] || a.slabs[s].meta == nil {
			continue
		}
		m := a.slabs[s].meta
		inSlab := 0
		for i := 0; i < slabUnits; {
			k := m.kind[i]
			if k&(freeBit|usedBit) == 0 {
				t.Fatalf("slab %d unit %d is in no block", s, i)
			}
			order := int(k & orderSet)
			if i%(1<<order) != 0 {
				t.Fatalf("a block of order %d at %d", order, i)
			}
			if k&freeBit != 0 {
				if got, ok := listed[uint32(s*slabUnits+i)]; !ok || got != order {
					t.Fatalf("a free block is in no list")
				}
				if half := i ^ 1<<order; order < maxOrder && m.kind[half] == k {
					t.Fatalf("two free halves are not joined")
				}
			} else {
				inSlab += 1 << order
			}
			i += 1 << order
		}
		if inSlab != m.used {
			t.Fatalf("slab %d: %d units used, %d counted", s, inSlab, m.used)
		}
		used += int64(inSlab) * Unit
	}
	if used != a.used {
		t.Fatalf("%d octets used, %d counted", used, a.used)
	}
}

// settle waits for the goroutines that touch slabs and replace pages: they always end.
func settle(t testing.TB, a *Arena) {
	t.Helper()
	for range 1000 {
		a.mu.Lock()
		touching := a.touching || a.renewing
		a.mu.Unlock()
		if !touching {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it goes on touching slabs")
}

// run does what script says, two octets a step, against a plain model.
func run(t testing.TB, script []byte, slabs int64) {
	type held struct {
		e      Extent
		id     uint64
		size   int
		owners int
	}
	a := newArena(t, slabs*SlabBytes)
	rng := rand.New(rand.NewPCG(uint64(len(script)), 7))
	var all []held
	for id := uint64(1); len(script) >= 2; id++ {
		op, arg := script[0], int(script[1])
		script = script[2:]
		switch {
		case op < 120:
			size := arg * arg * int(op%8+1) / (1 + int(op%5)*20)
			if e, ok := build(a, content(id, size), rng); ok {
				all = append(all, held{e, id, size, 1})
			}
		case op < 140 && len(all) > 0:
			h := &all[arg%len(all)]
			a.Retain(h.e)
			h.owners++
		case op < 150 && len(all) > 0:
			a.Lend(all[arg%len(all)].e)
		case op < 245 && len(all) > 0:
			i := arg % len(all)
			a.Release(all[i].e)
			if all[i].owners--; all[i].owners == 0 {
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			}
		case op < 250:
			before := a.Stats().Touched
			if n := a.GiveBack(int64(arg) << 14); n > before || n%SlabBytes != 0 {
				t.Fatalf("%d given back", n)
			}
		case op < 255:
			a.SetCeiling(int64(arg%int(slabs+1)) * SlabBytes)
		default:
			a.SetCeiling(-1)
		}
	}
	var sum, least int64
	for _, h := range all {
		if !bytes.Equal(read(a, h.e, h.size), content(h.id, h.size)) {
			t.Fatalf("extent %d of %d octets has another's", h.id, h.size)
		}
		sum += Footprint(int64(h.size))
		least += (int64(h.size) + Unit - 1) / Unit * Unit
	}
	settle(t, a)
	check(t, a)
	if used := a.Stats().Used; used < least || used > sum {
		t.Fatalf("%d octets used by extents of %d to %d", used, least, sum)
	}
	for _, h := range all {
		for range h.owners {
			a.Release(h.e)
		}
	}
	settle(t, a)
	if a.Stats().Used != 0 {
		t.Fatal("something is left")
	}
	check(t, a)
}

// TestModel: extents keep their octets through anything, and take no more than
// their size rounded up to a unit.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 1200)
		for i := 0; i < len(script); i += 8 {
			binary.LittleEndian.PutUint64(script[i:], rng.Uint64())
		}
		run(t, script, int64(1+seed%6))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzArena(f *testing.F) {
	f.Add([]byte{1, 255, 2, 9, 200, 0, 246, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 1000 {
			script = script[:1000]
		}
		run(t, script, 2)
	})
}

// TestFull: all memory can be had, in whatever pieces; then there is none; and
// what is let go is whole again.
func TestFull(t *testing.T) {
	a := newArena(t, 3*SlabBytes)
	var all []Extent
	for {
		b := a.Build()
		if b.Next(Unit) == nil {
			break
		}
		all = append(all, b.End(Unit))
	}
	if len(all) != 3*slabUnits {
		t.Fatalf("%d blocks of %d", len(all), 3*slabUnits)
	}
	for i := 0; i < len(all); i += 2 {
		a.Release(all[i])
	}
	b := a.Build() // no two free units are neighbours
	if !b.Write(content(1, 3*SlabBytes/2)) {
		t.Fatal("free blocks do not serve a large body")
	}
	big := b.End(3 * SlabBytes / 2)
	if !bytes.Equal(read(a, big, 3*SlabBytes/2), content(1, 3*SlabBytes/2)) {
		t.Error("and another's octets")
	}
	a.Release(big)
	for i := 1; i < len(all); i += 2 {
		a.Release(all[i])
	}
	check(t, a)
	if a.whole != 3 || a.GiveBack(a.Bytes()) != a.Bytes() || a.Stats().Touched != 0 {
		t.Errorf("%d whole slabs, %d touched", a.whole, a.Stats().Touched)
	}
	one := a.Build()
	copy(one.Next(2), "ok")
	if e := one.End(2); string(read(a, e, 2)) != "ok" {
		t.Error("what was given back is not usable again")
	}
}

// TestOnePiece: what is built step by step in quiet memory is read in one piece.
func TestOnePiece(t *testing.T) {
	a := newArena(t, 4*SlabBytes)
	b := a.Build()
	for range 16 {
		b.Next(64 << 10)
	}
	e := b.End(SlabBytes)
	p, next := a.Read(e.First())
	if len(p) != SlabBytes || next != 0 {
		t.Errorf("%d octets, then %d", len(p), next)
	}
}

// TestOwners: many read and let go at once, one evicts, and others fill what is
// free: nobody sees another's octets. A release too many panics.
func TestOwners(t *testing.T) {
	a := newArena(t, 2*SlabBytes)
	type place struct {
		sync.Mutex
		e    Extent
		id   uint64
		size int
	}
	places := make([]place, 50)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 3))
			for n := range uint64(500) {
				p := &places[rng.IntN(len(places))]
				if rng.IntN(3) == 0 {
					id, size := g<<32|n, rng.IntN(60_000)
					e, ok := build(a, content(id, size), rng)
					if !ok {
						size = 0
					}
					p.Lock()
					p.e, e = e, p.e
					p.id, p.size = id, size
					p.Unlock()
					a.Release(e)
					continue
				}
				p.Lock()
				a.Retain(p.e)
				e, id, size := p.e, p.id, p.size
				p.Unlock()
				if size > 0 && !bytes.Equal(read(a, e, size), content(id, size)) {
					t.Errorf("extent %d of %d octets has another's", id, size)
				}
				a.Release(e)
			}
		})
	}
	wg.Wait()
	for i := range places {
		a.Release(places[i].e)
	}
	settle(t, a)
	check(t, a)
	if used := a.Stats().Used; used != 0 {
		t.Errorf("%d octets are left", used)
	}
	b := a.Build()
	b.Next(1)
	e := b.End(1)
	a.Release(e)
	defer func() {
		if recover() == nil {
			t.Error("a second release is taken")
		}
	}()
	a.Release(e)
}

// TestGoMemory: without mappings slabs are Go memory, and all else is the same.
func TestGoMemory(t *testing.T) {
	a := newArena(t, 2*SlabBytes)
	a.region = nil
	for i := range a.slabs {
		a.slabs[i].mem = nil
	}
	rng := rand.New(rand.NewPCG(1, 1))
	e, _ := build(a, content(5, 1_500_000), rng)
	if !bytes.Equal(read(a, e, 1_500_000), content(5, 1_500_000)) {
		t.Error("other octets")
	}
	a.Release(e)
	if a.GiveBack(a.Bytes()) == 0 || a.Stats().Touched != 0 {
		t.Error("nothing is given back")
	}
}

// TestTouchedAhead: once some memory is in use more of it is at hand, within
// the ceiling.
func TestTouchedAhead(t *testing.T) {
	a := newArena(t, 64*SlabBytes)
	if a.Stats().Touched != 0 {
		t.Error("an arena that is not used takes memory")
	}
	a.SetCeiling(20 * SlabBytes)
	for range 16 {
		b := a.Build()
		b.Next(SlabBytes)
		b.End(SlabBytes)
	}
	settle(t, a)
	if st := a.Stats(); a.region != nil && (st.Touched < 17*SlabBytes || st.Touched > 20*SlabBytes) {
		t.Errorf("%d slabs touched for 16", st.Touched/SlabBytes)
	}
	for range 4 {
		b := a.Build()
		if b.Next(SlabBytes) == nil {
			t.Fatal("no room under the ceiling")
		}
	}
	b := a.Build()
	if b.Next(1) != nil {
		t.Error("more than the ceiling")
	}
	a.SetCeiling(-1)
	if b.Next(1) == nil {
		t.Error("the ceiling stays")
	}
	total := 0
	a.Fullness(func(_ int, used int64) { total += int(used) })
	if total != int(a.Stats().Used) {
		t.Errorf("%d octets in slabs, %d used", total, a.Stats().Used)
	}
}

func BenchmarkRetain(b *testing.B) {
	a := newArena(b, SlabBytes)
	w := a.Build()
	w.Next(1)
	e := w.End(1)
	for b.Loop() {
		a.Retain(e)
		a.Release(e)
	}
}

func BenchmarkBuild(b *testing.B) {
	a := newArena(b, 64*SlabBytes)
	b.ReportAllocs()
	for b.Loop() {
		w := a.Build()
		w.Next(10_000)
		w.Next(10_000)
		a.Release(w.End(12_000))
	}
}

// TestPiece: an extent in one piece takes no more than its size, or there is none.
func TestPiece(t *testing.T) {
	a := newArena(t, SlabBytes)
	var all []Extent
	var sum int64
	for n := 1; ; n = n*5/3 + 1 {
		e, mem, ok := a.Piece(n)
		if !ok {
			if n < 100_000 {
				t.Errorf("no piece of %d", n)
			}
			break
		}
		copy(mem, content(uint64(n), n))
		p, next := a.Read(e.First())
		if next != 0 || !bytes.Equal(p[:n], content(uint64(n), n)) {
			t.Errorf("a piece of %d is not in one", n)
		}
		all, sum = append(all, e), sum+Footprint(int64(n))
	}
	if a.Stats().Used != sum {
		t.Errorf("%d octets used, not %d", a.Stats().Used, sum)
	}
	settle(t, a)
	check(t, a)
	for _, e := range all {
		a.Release(e)
	}
	check(t, a)
	if _, _, ok := a.Piece(SlabBytes + 1); ok {
		t.Error("more than a slab")
	}
}
