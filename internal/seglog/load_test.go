package seglog

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// F5: a log of many values is open, and gives them out, within moments. The
// number is what PERIGEE_TEST_OBJECTS says: a million for the catalogue's figure.
func TestManyValues(t *testing.T) {
	n := uint64(5000)
	if s := os.Getenv("PERIGEE_TEST_OBJECTS"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	const size = 1000
	dir := t.TempDir()
	c := Config{Dir: dir, Budget: max(MinBudget, 4096*int64(n))}
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		put(t, l, i, size)
	}
	l.Close()
	for _, how := range []string{"from the saved index", "by a scan of every record"} {
		if how != "from the saved index" {
			if ids, _ := l.list(); len(ids) > 0 {
				for _, id := range ids {
					os.Remove(l.segmentPath(id) + indexExt)
				}
			}
		}
		start := time.Now()
		l, err = Open(c)
		if err != nil {
			t.Fatal(err)
		}
		opened := time.Since(start)
		for range 1000 {
			if i := rand.Uint64N(n); !get(t, l, i, size) {
				t.Fatalf("value %d is missing", i)
			}
		}
		t.Logf("%d values, %s: open after %v, a thousand read after %v", n, how, opened, time.Since(start))
		if s := l.Stats(); s.Records != int(n) || s.Corrupt != 0 {
			t.Errorf("%s: %+v", how, s)
		}
		l.Close()
	}
}
