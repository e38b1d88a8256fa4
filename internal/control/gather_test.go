package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"perigee.example/feed"
)

// written is one entry that a gather wrote, and when.
type written struct {
	kind   string
	purges []Purge
	at     time.Duration
}

// slowLog takes entries as a disk with a slow sync does.
type slowLog struct {
	sync    time.Duration
	fail    error
	start   time.Time
	mu      sync.Mutex
	entries []written
}

func (l *slowLog) write(kind string, body any) (uint64, error) {
	at := time.Since(l.start)
	time.Sleep(l.sync) // virtual: every test here runs in a bubble
	b, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	e := feed.Entry{Version: 1, Epoch: 1, Seq: 1, Chain: strings.Repeat("0", 64), Kind: kind, Body: b}
	if _, err := e.Encode(); err != nil {
		return 0, err
	}
	command, err := DecodeCommand(e)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	l.entries = append(l.entries, written{kind, PurgesOf(command), at})
	return uint64(len(l.entries)), nil
}

// url is the nth purge; pad makes it longer.
func urlPurge(n, pad int) Purge {
	return Purge{Site: "shop", URL: fmt.Sprintf("http://shop.example.com/%d%s", n, strings.Repeat("x", pad))}
}

// TestPurgesThatComeTogetherShareEntries: fifty callers, one sync of the disk for
// all that came while another was under way, and each is told the entry its own
// purge is in.
func TestPurgesThatComeTogetherShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{sync: 2 * time.Millisecond, start: time.Now()}
		g := newGather(log.write)
		var wg sync.WaitGroup
		for n := range 50 {
			wg.Go(func() {
				for round := range 3 {
					seqs, err := g.submit([]Purge{urlPurge(100*round+n, 0)})
					if err != nil || len(seqs) != 1 {
						t.Errorf("caller %d: %v, %v", n, seqs, err)
						return
					}
					log.mu.Lock()
					e := log.entries[seqs[0]-1]
					log.mu.Unlock()
					found := 0
					for _, p := range e.purges {
						if p == urlPurge(100*round+n, 0) {
							found++
						}
					}
					if found != 1 {
						t.Errorf("caller %d: its purge is %d times in entry %d", n, found, seqs[0])
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(gatherFor) // the last entry was shared: another stays open for a moment
		total := 0
		for _, e := range log.entries {
			total += len(e.purges)
			if want := map[bool]string{true: KindPurge, false: KindPurges}[len(e.purges) == 1]; e.kind != want {
				t.Errorf("%d purges in an entry of kind %s", len(e.purges), e.kind)
			}
		}
		if total != 150 || len(log.entries) > 8 {
			t.Errorf("%d purges in %d entries, want 150 in a few", total, len(log.entries))
		}
		for i := 2; i < len(log.entries); i++ {
			if d := log.entries[i].at - log.entries[i-1].at; d < gatherFor {
				t.Errorf("entry %d of a crowd began %v after the one before", i, d)
			}
		}
	})
}

// TestCallerAloneWaitsForNobody: its purges take the disk's time and no more,
// one after the other, and together.
func TestCallerAloneWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{sync: time.Millisecond, start: time.Now()}
		g := newGather(log.write)
		for n := range 20 {
			if _, err := g.submit([]Purge{urlPurge(n, 0)}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(log.start); took != 20*time.Millisecond {
			t.Errorf("20 purges one after the other took %v, want 20 syncs", took)
		}
		begun := time.Now()
		if _, err := g.submit(make([]Purge, 0)); err != nil {
			t.Fatal(err)
		}
		many := make([]Purge, 2*maxShared+1)
		for i := range many {
			many[i] = urlPurge(i, 0)
		}
		seqs, err := g.submit(many)
		if err != nil || seqs[0] != 21 || seqs[len(seqs)-1] != uint64(len(log.entries)) {
			t.Fatalf("entries %d to %d of %d, %v", seqs[0], seqs[len(seqs)-1], len(log.entries), err)
		}
		if took, n := time.Since(begun), len(log.entries)-20; took != time.Duration(n)*time.Millisecond {
			t.Errorf("%d entries of one caller took %v", n, took)
		}
		next := 0
		for _, e := range log.entries[20:] {
			for _, p := range e.purges {
				if p != urlPurge(next, 0) {
					t.Fatalf("purge %d is %s", next, p.URL)
				}
				next++
			}
		}
		if next != len(many) {
			t.Errorf("%d purges on the log, want %d", next, len(many))
		}
	})
}

// TestEntriesHaveTheirBounds: of number and of bytes, whatever is in them. What
// JSON writes in six bytes counts as six.
func TestEntriesHaveTheirBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{start: time.Now()}
		g := newGather(log.write)
		var many []Purge
		for i := range 40 {
			many = append(many, Purge{Site: "shop", URL: "http://shop.example.com/?" + strings.Repeat("&", maxURLBytes-100-i)})
		}
		for i := range maxShared + 1 {
			many = append(many, urlPurge(i, 0))
		}
		if _, err := g.submit(many); err != nil {
			t.Fatal(err) // slowLog encodes every entry as the feed does
		}
		if n := len(log.entries[len(log.entries)-1].purges); n == 0 || n > maxShared {
			t.Errorf("%d purges in the last entry", n)
		}
	})
}

// TestNobodyIsAcknowledgedWhenTheEntryFails: all that shared it are told.
func TestNobodyIsAcknowledgedWhenTheEntryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{sync: time.Millisecond, start: time.Now(), fail: errors.New("disk gone")}
		g := newGather(log.write)
		var wg sync.WaitGroup
		for n := range 30 {
			wg.Go(func() {
				if seqs, err := g.submit([]Purge{urlPurge(n, 0), urlPurge(n+100, 0)}); err != log.fail {
					t.Errorf("caller %d: %v, %v", n, seqs, err)
				}
			})
		}
		wg.Wait()
		time.Sleep(gatherFor)
		log.fail = nil
		if seqs, err := g.submit([]Purge{urlPurge(1, 0)}); err != nil || seqs[0] != 1 {
			t.Errorf("afterwards: %v, %v", seqs, err)
		}
	})
}
