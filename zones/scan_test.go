package zones

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// parsePlain is Parse without the scanner: every line is the parser's.
func parsePlain(text []byte, o Options) (*Zone, []Finding) {
	l := newLoader("", nil)
	l.plain = true
	r := l.run("x.zone", text, nil, o)
	return r.zone, r.findings
}

// sameByParser holds what the scanner makes of a text against what the parser
// alone does: the same records, or the same findings.
func sameByParser(t *testing.T, text []byte) (scanned *Zone) {
	t.Helper()
	o := Options{Origin: "example.test", MaxRecords: 2000}
	a, found := Parse("x.zone", text, o)
	b, want := parsePlain(text, o)
	if got, want := show(found), show(want); got != want {
		t.Fatalf("%q:\nscanner and parser find\n%sthe parser alone\n%s", text, got, want)
	}
	if (a == nil) != (b == nil) || a != nil && dump(a) != dump(b) {
		t.Fatalf("%q:\nscanner and parser make\n%sthe parser alone\n%s", text, dump(a), dump(b))
	}
	return a
}

var scannerLines = []string{
	"www A 192.0.2.1", "www 60 IN A 192.0.2.1", "www IN 60 A 192.0.2.1", "WWW in a 192.0.2.1", " A 192.0.2.2", "\tIN\tAAAA\t2001:db8::1 ; comment", "@ MX 10 mail",
	"example.test. TXT \"one\" \"two three\"", "x TXT one", "x TXT \"a;b\" ; c", "x TXT \"\\\"\"", "x.y.z CNAME www.example.test.", "srv SRV 1 2 3 www", "*.w A 192.0.2.3",
	"$TTL 1h", "$TTL 600", "$TTL 9x", "$ORIGIN sub", "$ORIGIN sub.example.test.", "$ORIGIN .", "$ORIGIN example.test.", "$origin EXAMPLE.test. ; c", "$GENERATE 1-3 g$ A 192.0.2.$", " TXT \"after\"",
	"", "   ", "; comment", " ; comment", "bad A 192.0.2.300", "b A 1.2.3", "b A 01.2.3.4", "b AAAA ::", "b AAAA 1::2::3", "b AAAA ::ffff:192.0.2.1", "b AAAA 1:2:3:4:5:6:7:8", "b AAAA 1:2:3:4:5:6:7::", "b AAAA ::2:3:4:5:6:7:8",
	"b AAAA 1:2:3:4:5:6:7", "b AAAA :1::", "b AAAA 12345::", "p PTR (\n www )", "q A ( 192.0.2.1\n )", "out.example.net. A 192.0.2.1", "a..b A 192.0.2.1", "a\\.b A 192.0.2.1", "r 1h A 192.0.2.1", "r 99999999999 A 192.0.2.1",
	"s CH A 192.0.2.1", "t A", "t A 192.0.2.1 x", "u MX 70000 www", "u MX 5", "v NS ns1", "ns1.v A 192.0.2.9", "crlf A 192.0.2.1\r", "c\rr A 192.0.2.1", "TTL A 192.0.2.1", "A A 192.0.2.1", "IN IN A 192.0.2.1", "60 60 A 192.0.2.1", "x TYPE1 \\# 4 c0000201",
	strings.Repeat("l", 63) + " A 192.0.2.1", strings.Repeat("l", 64) + " A 192.0.2.1", "n NS .", "n CNAME @", "i.e. A 192.0.2.1", "e A 192.0.2.1 ;", "f A\t192.0.2.1\t", " 120 A 192.0.2.8", " IN A 192.0.2.8", "x DNAME y", "k TXT \"a\"\"b\"", "k TXT \"\"",
}

// TestScanner: common and odd lines, alone and in any company, mean what the
// parser says that they mean.
func TestScanner(t *testing.T) {
	heads := []string{lintBase, "@ 300 SOA ns1 h 1 3600 900 1209600 60\n@ 300 NS ns1\nns1 300 A 192.0.2.1\n", "@ IN SOA ns1 h 1 3600 900 1209600 60\n"}
	for _, head := range heads {
		for _, line := range scannerLines {
			sameByParser(t, []byte(head+line+"\n"))
			sameByParser(t, []byte(head+line))
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	loaded := 0
	for range 3000 {
		text := heads[rng.IntN(2)]
		for range 1 + rng.IntN(8) {
			text += scannerLines[rng.IntN(len(scannerLines))] + "\n"
		}
		if sameByParser(t, []byte(text)) != nil {
			loaded++
		}
	}
	if loaded < 50 {
		t.Errorf("%d of 3,000 texts load", loaded)
	}
}

// TestScannerLongText: text that fits in no record is not cut to what is left of
// its length in 16 bits.
func TestScannerLongText(t *testing.T) {
	one := ` "` + strings.Repeat("x", 255) + `"`
	for _, n := range []int{253, 254, 255, 256, 257, 300} {
		z := sameByParser(t, []byte(lintBase+"big TXT"+strings.Repeat(one, n)+"\n"))
		if fits := 256*n+recordHeader <= maxRRset; (z != nil) != fits {
			t.Errorf("a TXT record of %d strings: served %v", n, z != nil)
		}
	}
}

// FuzzScanner: the same, on any text.
func FuzzScanner(f *testing.F) {
	files, err := filepath.Glob("../testdata/zones/*.zone")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for i := range scannerLines {
		f.Add([]byte(lintBase + strings.Join(scannerLines[i:min(i+4, len(scannerLines))], "\n") + "\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<14 {
			t.Skip("longer than what a fuzzer should spend time on")
		}
		sameByParser(t, text)
	})
}

// TestPieces: a file that comes in any pieces is the same zone, also
// when an entry is longer than a piece.
func TestPieces(t *testing.T) {
	var b strings.Builder
	b.WriteString(lintBase)
	for i := range 30_000 {
		fmt.Fprintf(&b, "h%d A 192.0.2.%d\n", i, i&255)
		if i%5000 == 0 {
			fmt.Fprintf(&b, "big%d TXT ( \"%s\" ; comment\n %s )\n$GENERATE 1-3 g%d-$ A 192.0.2.$\n", i, strings.Repeat("x", 200), strings.Repeat("\n", chunk), i)
		}
	}
	text := b.String()
	o := Options{Origin: "example.test"}
	want, _ := parsePlain([]byte(text), o)
	if want == nil {
		t.Fatal("the text does not load")
	}
	for _, r := range []*pieces{{r: strings.NewReader(text)}, {r: iotest.OneByteReader(strings.NewReader(text))}} {
		l := newLoader("", nil)
		z := l.run("x.zone", nil, r, o)
		if z.zone == nil || dump(z.zone) != dump(want) {
			t.Fatalf("in pieces it is another zone: %s", show(z.findings))
		}
		if !r.closed {
			t.Error("the file is not closed")
		}
	}
	l := newLoader("", nil)
	z := l.run("x.zone", nil, &pieces{r: iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(text)))}, o)
	if z.zone != nil || !strings.Contains(show(z.findings), "cannot read the file: timeout") {
		t.Errorf("half a file that cannot be read further is a zone: %s", show(z.findings))
	}
}

// pieces is a file that gives what a reader gives.
type pieces struct {
	r interface{ Read([]byte) (int, error) }
	fs.File
	closed bool
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b) }
func (p *pieces) Close() error               { p.closed = true; return nil }
