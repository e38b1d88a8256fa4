package feed

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestEntryFormat: entries of the first version are read, follow one from the
// other, and are written byte for byte the same. An entry of a newer version, or
// with a field that is not known, is refused with a cure: it is not half read.
func TestEntryFormat(t *testing.T) {
	b, err := os.ReadFile("testdata/entries-v1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	last, n := Position{Epoch: 1}, 0
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		e, err := Decode(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		want := Next
		if e.Kind == KindEpoch {
			want = Break
			if !e.intact() {
				t.Errorf("the chain of epoch %d does not begin anew", e.Epoch)
			}
		}
		if v := Verify(last, e); v.Kind != want {
			t.Errorf("seq %d: %v %s, want %v", e.Seq, v.Kind, v.Why, want)
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, line) {
			t.Errorf("written anew as\n%s, %v, want\n%s", again, err, line)
		}
		for edit, want := range map[string]string{`{"v":2,`: "version 2 is not known here (only 1): update this node", `{"v":1,"sealed":true,`: "sealed"} {
			if _, err := Decode([]byte(strings.Replace(string(line), `{"v":1,`, edit, 1))); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("with %s: %v, want %q", edit, err, want)
			}
		}
		last = e.Position()
		n++
	}
	if n < 10 {
		t.Errorf("%d entries only", n)
	}
}
