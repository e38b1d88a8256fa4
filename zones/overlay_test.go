package zones

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hosts is a zone as a list of lines that a test can change.
func hosts(n int) []string {
	lines := []string{"$TTL 300", "@ SOA ns1 h 1 3600 900 1209600 60", "@ NS ns1", "ns1 A 192.0.2.1"}
	for i := range n {
		lines = append(lines, fmt.Sprintf("h%d.d%d A 192.0.2.%d", i, i%97, i&255))
	}
	return lines
}

// TestOverlay: a version made of a base and the owners that changed answers
// every question, and is listed, as one that was compiled whole, through any
// chain of small changes.
func TestOverlay(t *testing.T) {
	const names = 3000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	lines := hosts(names)
	served := mustParse(t, "x.test", strings.Join(lines, "\n")+"\n")
	base := served.base
	made := []string{
		"*.d%d A 192.0.2.9", "a.b.c.d%d TXT x", "d%d NS ns1", "n%d DNAME other.test.", "h1.d%d CNAME ns1", "h2.d%d AAAA 2001:db8::1", "H3.D%d A 192.0.2.3",
	}
	overlays := 0
	for round := range 12 {
		for range 1 + rng.IntN(3) {
			switch i := 4 + rng.IntN(len(lines)-4); rng.IntN(3) {
			case 0:
				lines = append(lines[:i], lines[i+1:]...)
			case 1:
				lines = append(lines, fmt.Sprintf(made[rng.IntN(len(made))], rng.IntN(97)))
			default:
				lines[i] = strings.Fields(lines[i])[0] + " A 192.0.2.77"
			}
		}
		lines[1] = fmt.Sprintf("@ SOA ns1 h %d 3600 900 1209600 60", round+2)
		text := strings.Join(lines, "\n") + "\n"
		whole, findings := Parse("x.zone", []byte(text), Options{Origin: "x.test"})
		if whole == nil {
			t.Logf("round %d does not load: %s", round, show(findings))
			lines = hosts(names)
			continue
		}
		served = overlaid(served, mustParse(t, "x.test", text))
		if served.overlay != nil {
			overlays++
			if served.base != base {
				t.Fatalf("round %d: another base", round)
			}
		} else {
			base = served.base
		}
		if got, want := dump(served), dump(whole); got != want {
			t.Fatalf("round %d: the overlay lists another zone", round)
		}
		if served.Serial() != whole.Serial() || served.Len() != whole.Len() || served.Negative().TTL != 60 {
			t.Fatalf("round %d: serial %d, %d names", round, served.Serial(), served.Len())
		}
		sameAnswers(t, served, whole, rng)
		for c := range Changes(served, whole) {
			t.Fatalf("round %d: %s %s differs", round, FormatName(c.Owner), typeName(c.Type))
		}
	}
	if overlays < 6 {
		t.Errorf("%d overlays in 12 rounds", overlays)
	}
}

// sameAnswers asks both zones the same questions.
func sameAnswers(t *testing.T, a, b *Zone, rng *rand.Rand) {
	t.Helper()
	labels := []string{"x", "*", "a", "b", "c", "d1", "d2", "h1", "h2", "ns1", "n3", "other"}
	for range 3000 {
		name := "x.test."
		for range rng.IntN(5) {
			label := labels[rng.IntN(len(labels))]
			if rng.IntN(3) == 0 {
				label = fmt.Sprintf("%c%d", "dhn"[rng.IntN(3)], rng.IntN(97))
			}
			name = label + "." + name
		}
		wire := wireName(t, name)
		for _, qtype := range []uint16{typeA, typeNS, typeCNAME, typeANY} {
			var x, y Result
			a.Lookup(wire, qtype, &x)
			b.Lookup(wire, qtype, &y)
			samePlain(t, a, wire, qtype, &x)
			samePlain(t, b, wire, qtype, &y)
			if describe(a, &x) != describe(b, &y) {
				t.Fatalf("%s %s: %s, and whole %s", name, typeName(qtype), describe(a, &x), describe(b, &y))
			}
		}
		n, ok := a.Find(wire)
		if m, found := b.Find(wire); ok != found || ok && fmt.Sprint(a.RRsets(n, nil)) != fmt.Sprint(b.RRsets(m, nil)) {
			t.Fatalf("%s: found %v and %v, or with other data", name, ok, found)
		}
	}
}

// TestOverlayLimits: what is too much for an overlay is served whole.
func TestOverlayLimits(t *testing.T) {
	old := mustParse(t, "x.test", strings.Join(hosts(1000), "\n")+"\n")
	for _, c := range []struct {
		changed int
		overlay bool
	}{{0, false}, {1, true}, {10, true}, {11, false}} { // 1,098 nodes and the apex
		lines := hosts(1000)
		for i := range c.changed {
			lines[4+i] = strings.Replace(lines[4+i], "192.0.2", "198.51.100", 1)
		}
		z := overlaid(old, mustParse(t, "x.test", strings.Join(lines, "\n")+"\n"))
		if (z.overlay != nil) != c.overlay || (z.base == old.base) != (c.changed <= 10) {
			t.Errorf("%d changed: overlay %v, same base %v", c.changed, z.overlay != nil, z.base == old.base)
		}
	}
	signed := mustParse(t, "example.test", signedHead)
	if z := overlaid(signed, mustParse(t, "example.test", signedHead)); z.overlay != nil || z.base == signed.base {
		t.Error("a signed zone shares a base")
	}
}

// TestFreed: a large image goes when the last reader lets go of it, and not
// before.
func TestFreed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.test.zone")
	put(t, path, zoneText(1, 60_000))
	z, _ := Load(path, Options{Origin: "x.test"})
	if z == nil || !z.base.blocks[0].Mapped() {
		t.Skip("images are Go memory here")
	}
	reader := z
	block := z.base.blocks[0]
	z = nil
	runtime.GC()
	name := wireName(t, "h59999.x.test")
	var r Result
	if reader.Lookup(name, typeA, &r); r.Kind != Found || !block.Mapped() {
		t.Fatal("the image went under its reader")
	}
	runtime.KeepAlive(reader)
	reader = nil
	for i := 0; block.Mapped(); i++ {
		if i == 100 {
			t.Fatal("nobody holds the zone, and its memory is not given back")
		}
		runtime.GC()
		runtime.Gosched()
	}
	_ = os.Remove(path)
}

// TestOrderOfLines: records of an owner that stand apart are joined, empty
// non-terminals that get data later are replaced, and the zone is the same in
// whatever order its lines come.
func TestOrderOfLines(t *testing.T) {
	var lines []string
	for i := range 400 {
		owner := fmt.Sprintf("h%d.d%d", i, i%7)
		lines = append(lines, owner+" A 192.0.2.1", owner+" A 192.0.2.2", owner+" AAAA 2001:db8::1", owner+" TXT \"x\"", fmt.Sprintf("deep.%s MX 10 h1.d1", owner), fmt.Sprintf("*.%s A 192.0.2.3", owner))
	}
	for i := range 7 {
		lines = append(lines, fmt.Sprintf("d%d TXT \"was an empty non-terminal\"", i))
	}
	lines = append(lines, "@ MX 10 h1.d1", "@ NS ns1", "ns1 A 192.0.2.1", "@ SOA ns1 h 1 3600 900 1209600 60")
	whole := mustParse(t, "x.test", "$TTL 300\n"+strings.Join(lines, "\n")+"\n")
	checkZone(t, whole)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 5 {
		rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		z := mustParse(t, "x.test", "$TTL 300\n"+strings.Join(lines, "\n")+"\n")
		if dump(z) != dump(whole) || z.Len() != whole.Len() {
			t.Fatalf("seed %d: another order makes another zone", seed)
		}
		checkZone(t, z)
	}
}
