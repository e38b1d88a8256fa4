package dnsserver

import (
	"encoding/binary"
	"encoding/hex"
	"testing"

	"perigee.example/internal/txtest"
	"perigee.example/zones"
)

func TestParseAllocatesNothing(t *testing.T) {
	q, err := txtest.ParseQuery("www.example.test +ecs=192.0.2.0/24 +nsid +do +bufsize=4096")
	if err != nil {
		t.Fatal(err)
	}
	var got query
	if n := testing.AllocsPerRun(100, func() { got.parse(q.Wire) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if zones.FormatName(got.name[:got.nameLen]) != "www.example.test." || got.qtype != typeA || got.qclass != classIN {
		t.Errorf("question: %+v", got)
	}
	e := got.edns
	if !e.present || !e.do || !e.nsid || e.size != 4096 || !e.ecs.present || e.ecs.source != 24 || e.ecs.family != 1 {
		t.Errorf("edns: %+v", e)
	}
}

// TestReadECS walks every source length of both families with all bits set,
// and one bit too many.
func TestReadECS(t *testing.T) {
	for family, bits := range map[uint16]int{1: 32, 2: 128} {
		for source := range bits + 1 {
			data := binary.BigEndian.AppendUint16(nil, family)
			data = append(data, byte(source), 0)
			for i := range (source + 7) / 8 {
				octet := byte(0xFF)
				if left := source - 8*i; left < 8 {
					octet <<= 8 - left
				}
				data = append(data, octet)
			}
			var e ecs
			if !e.read(data) {
				t.Errorf("family %d source %d refused: %s", family, source, hex.EncodeToString(data))
			}
			if p, ok := e.prefix(); ok != (source > 0) || ok && (p.Bits() != source || p != p.Masked()) {
				t.Errorf("family %d source %d: prefix %v, %v", family, source, p, ok)
			}
			if source%8 != 0 {
				data[len(data)-1] |= 1 << (7 - source%8)
				if e.read(data) {
					t.Errorf("family %d source %d: a bit beyond the prefix is taken: %s", family, source, hex.EncodeToString(data))
				}
			}
			if e.read(append(data, 0)) || source > 0 && e.read(data[:len(data)-1]) {
				t.Errorf("family %d source %d: a wrong length is taken", family, source)
			}
		}
	}
}

func TestTable(t *testing.T) {
	names := []string{"example.test.", "test.", "a.b.c.example.test.", "example.org.", "xn--nxasmq6b.example."}
	var origins [][]byte
	for _, n := range names {
		w, err := wireName(n)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, w)
	}
	tab := newTable(origins)
	for name, want := range map[string]int{
		"example.test.": 0, "www.example.test.": 0, "c.example.test.": 0, "a.b.c.example.test.": 2, "x.a.b.c.example.test.": 2,
		"test.": 1, "other.test.": 1, "example.org.": 3, "org.": -1, ".": -1, "ample.org.": -1, "example.": -1,
	} {
		w, err := wireName(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := tab.find(w, 0); got != want {
			t.Errorf("%s: zone %d, want %d", name, got, want)
		}
	}
}
