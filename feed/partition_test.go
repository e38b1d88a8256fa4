package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Three control nodes of a log that was trimmed. One is cut off: it refuses, with
// the reason, and the other two go on. When the link is there again it has what it
// missed, and appends, and nobody did anything. Another loses its disk and starts
// over an empty folder: it is given all that there is. No epoch begins anywhere.
func TestPartition(t *testing.T) {
	t.Parallel()
	p := newPartition(t)
	for range 5 {
		p.must(t, "ctl1")
	}
	one := p.servers["ctl1"].Log()
	if err := one.Trim(patient(t), 4); err != nil {
		t.Fatal(err)
	}
	cut, _, err := one.Leader(patient(t)) // the one that leads is cut off, which is the worse case
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.DeleteFunc(slices.Clone(p.names), func(name string) bool { return name == cut })
	p.fresh(t, cut) // it knows what the others wrote
	heal := p.cut(cut)
	defer heal()
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	refused := make(chan error, 1)
	go func() {
		_, err := p.servers[cut].Log().Append(ctx, "purge", map[string]int{"n": 1000})
		refused <- err
	}()
	p.must(t, rest[0])
	p.must(t, rest[1])
	if err := <-refused; !errors.Is(err, ErrNoQuorum) || ctx.Err() != nil {
		t.Fatalf("append at the one that is cut off: %v", err)
	}
	heal()
	p.same(t, cut, rest[0])
	p.must(t, cut)

	lost := rest[1]
	p.servers[lost].Close()
	if err := os.RemoveAll(filepath.Join(p.dir, lost)); err != nil {
		t.Fatal(err)
	}
	p.must(t, rest[0])
	p.start(t, lost)
	p.same(t, lost, rest[0])
	p.must(t, lost)
	p.holdAll(t, 4)
}

// partition is three members with relays between them, and what was appended.
type partition struct {
	*members
	n int
}

func newPartition(t *testing.T) *partition {
	t.Helper()
	m := newMembers(t)
	m.relays = map[[2]string]*relay{}
	for _, from := range m.names {
		for _, to := range m.names {
			if from != to {
				m.relays[[2]string{from, to}] = newRelay(t, m.doors[to])
			}
		}
	}
	m.start(t, m.names...)
	return &partition{members: m}
}

// must appends the next number.
func (p *partition) must(t *testing.T, name string) {
	t.Helper()
	p.n++
	for {
		_, err := p.servers[name].Log().Append(patient(t), "purge", map[string]int{"n": p.n})
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNoQuorum) && t.Context().Err() == nil {
			continue // an election, on a slow machine; what is unknown may be there twice
		}
		if err != nil {
			t.Fatalf("append at %s: %v", name, err)
		}
		return
	}
}

// cut holds all that passes between a member and the others, until heal.
func (p *partition) cut(name string) (heal func()) {
	var held []*relay
	for way, r := range p.relays {
		if way[0] == name || way[1] == name {
			r.mu.Lock()
			held = append(held, r)
		}
	}
	return func() {
		for _, r := range held {
			r.mu.Unlock()
		}
		held = nil
	}
}

// fresh has a member read what the others wrote. It may be busy electing.
func (p *partition) fresh(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(clusterPatience); ; {
		err := p.servers[name].Log().Refresh(patient(t))
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// same waits until a member stands where another does.
func (p *partition) same(t *testing.T, name, as string) {
	t.Helper()
	for end := time.Now().Add(clusterPatience); ; {
		p.fresh(t, as) // each time: the one that led before may answer it yet, with what it knew
		want := p.servers[as].Log().Head()
		err := p.servers[name].Log().Refresh(patient(t))
		if err == nil && p.servers[name].Log().Head() == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s stands at %+v (%v), want %+v", name, p.servers[name].Log().Head(), err, want)
		}
	}
}

// holdAll wants the same entries at all members, from first on.
func (p *partition) holdAll(t *testing.T, first int) {
	t.Helper()
	var want []string
	for i := first; i <= p.n; i++ {
		want = append(want, fmt.Sprintf(`{"n":%d}`, i))
	}
	for name, s := range p.servers {
		p.fresh(t, name)
		var got []string
		for e, err := range s.Log().Entries(patient(t), 1) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.Body))
		}
		// The append that was refused may be there or not.
		got = slices.Compact(slices.DeleteFunc(got, func(b string) bool { return b == `{"n":1000}` }))
		if !slices.Equal(got, want) || s.Log().First() != uint64(first) || s.Log().EpochWhy() != "" || s.Log().Head().Epoch != 1 {
			t.Errorf("%s begins at %d and holds %v, want %v; new epoch %q", name, s.Log().First(), got, want, s.Log().EpochWhy())
		}
	}
}
