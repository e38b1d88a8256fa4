package feed

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Wherever the power goes while a position is written, what is read is that one or the one
// before it: what was acknowledged stays known, and never is there a third.
func TestKnownIsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, knownName)
	places := []Position{}
	for _, e := range chainOf(t, 1, 1, 6) {
		places = append(places, e.Position())
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, p := range places {
		before, err := os.ReadFile(path)
		if err != nil && i > 0 {
			t.Fatal(err)
		}
		if err := writeKnown(dir, p); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		changed := 0
		for n := range after {
			if after[n] == before[n] {
				continue
			}
			changed++
			// The disk has the octets up to here, or those from here on, or any of them.
			for _, torn := range [][]byte{append(append([]byte{}, after[:n]...), before[n:]...), append(append([]byte{}, before[:n]...), after[n:]...), mixed(rnd, before, after)} {
				if err := os.WriteFile(path, torn, 0o600); err != nil {
					t.Fatal(err)
				}
				if got, ok, err := readKnown(dir); err != nil || !ok || got != p && got != places[i-1] {
					t.Fatalf("write %d, torn at %d: %+v, %v, %v", i, n, got, ok, err)
				}
			}
		}
		if changed == 0 {
			t.Fatal("nothing was written")
		}
		if err := os.WriteFile(path, after, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One slot rots: the other one counts. Both: it is said.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := len(places) - 1
	b[last%2*slotBytes+100] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readKnown(dir); err != nil || got != places[last-1] {
		t.Fatalf("with the newest slot rotten: %+v, %v", got, err)
	}
	b[(last+1)%2*slotBytes+100] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readKnown(dir); err == nil {
		t.Fatal("two rotten slots were read")
	}
}

func mixed(rnd *rand.Rand, a, b []byte) []byte {
	out := append([]byte{}, a...)
	for i := range out {
		if rnd.IntN(2) == 0 {
			out[i] = b[i]
		}
	}
	return out
}

// A file of the version before is read, and written in the form of today.
func TestKnownOfTheVersionBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, knownName)
	es := chainOf(t, 1, 1, 2)
	b, err := json.Marshal(es[0].Position())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := readKnown(dir); got != es[0].Position() || !ok || err != nil {
		t.Fatalf("%+v, %v, %v", got, ok, err)
	}
	if err := writeKnown(dir, es[1].Position()); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readKnown(dir); got != es[1].Position() || err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != knownBytes || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
}

// What an acknowledgement costs beside JetStream's own sync.
func BenchmarkWriteKnown(b *testing.B) {
	dir := b.TempDir()
	p := Position{Epoch: 1, Seq: 1, Chain: "0000000000000000000000000000000000000000000000000000000000000000"}
	for b.Loop() {
		p.Seq++
		if err := writeKnown(dir, p); err != nil {
			b.Fatal(err)
		}
	}
}
