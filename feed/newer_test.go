package feed

import (
	"errors"
	"strings"
	"testing"
)

// A log goes on in a later version: it is told as such, to a node each time that it
// connects, and to a control node of this version, which does not take it for damage.
func TestNewerEntryIsNotPassedOver(t *testing.T) {
	f := newFleet(t)
	if _, err := f.Log().Append(bounded(t), "drain", map[string]string{"edge": "a"}); err != nil {
		t.Fatal(err)
	}
	newer := `{"v":2,"epoch":1,"seq":2,"chain":"` + strings.Repeat("0", 64) + `","kind":"drain","at":1,"body":{"edge":"b"},"signed":"…"}`
	if _, err := f.Log().js.Publish(bounded(t), f.Log().ingest, []byte(newer)); err != nil {
		t.Fatal(err)
	}
	if err := f.AddNode(bounded(t), "fra1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		node, err := f.Follow(bounded(t), "fra1", Position{})
		if err != nil {
			t.Fatal(err)
		}
		first, err := node.Next(bounded(t))
		if err != nil || first.Seq != 1 {
			t.Fatalf("%+v, %v", first, err)
		}
		if e, err := node.Next(bounded(t)); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 2 is not known here (only 1): update") {
			t.Errorf("%+v, %v", e, err)
		}
		node.Close()
	}
	known, _, err := readKnown(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s, err := OpenServer(bounded(t), ServerConfig{Dir: f.dir})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "message 2 of the log in "+f.dir) {
		t.Errorf("a control node of this version: %v", err)
	}
	if after, _, err := readKnown(f.dir); err != nil || after != known {
		t.Errorf("what was acknowledged is now %+v, %v", after, err)
	}
}
