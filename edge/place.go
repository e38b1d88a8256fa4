package edge

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxPlaces bounds the places of the feed that an edge remembers. A child that is
	// further behind its shield than this is passed through. An entry holds up to a
	// thousand purges, so that this is days of a busy fleet, and 400 kB.
	maxPlaces = 4096
	// maxLogBytes bounds the name of a log. The feed's are SHA-256 in hex.
	maxLogBytes = 128
)

// places are the last places on the feed that were passed here, each with the name
// that the log has there. Two edges with the same name at a seq have read the
// same entries up to it. A number alone says less: a log that was put back from
// an older copy gives numbers out again.
type places struct {
	mu   sync.RWMutex
	ring []place // seq rises, from next on, then around
	next int     // where the oldest is, when the ring is full
}

type place struct {
	seq uint64
	log string
}

func (p *places) add(seq uint64, log string) {
	if log == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{seq, log}
	switch last := (p.next + len(p.ring) - 1); {
	case len(p.ring) > 0 && p.ring[last%len(p.ring)].seq >= seq:
	case len(p.ring) < maxPlaces:
		p.ring = append(p.ring, at)
	default:
		p.ring[p.next] = at
		p.next = (p.next + 1) % maxPlaces
	}
}

// forget is for numbers that begin anew.
func (p *places) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring, p.next = nil, 0
}

// at is the log's name at seq, or "" when that is not known.
func (p *places) at(seq uint64) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := len(p.ring)
	from, to := 0, n // those below from are below seq
	for from < to {
		mid := (from + to) / 2
		if p.ring[(p.next+mid)%n].seq < seq {
			from = mid + 1
		} else {
			to = mid
		}
	}
	if from < n && p.ring[(p.next+from)%n].seq == seq {
		return p.ring[(p.next+from)%n].log
	}
	return ""
}

// tellApplied says in h up to where the feed was applied here when a fetch began.
func (e *Edge) tellApplied(h http.Header, asOf instant) {
	v := strconv.FormatUint(asOf.seq, 10)
	if log := e.places.at(asOf.seq); log != "" {
		v += " " + log
	}
	h[appliedField] = []string{v}
}

// parseApplied reads what tellApplied wrote. A child that does not know the name
// of its log, or is of a version that did not tell it, has log "".
func parseApplied(lines []string) (seq uint64, log string, ok bool) {
	if len(lines) != 1 {
		return 0, "", false
	}
	number, log, _ := strings.Cut(lines[0], " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	return seq, log, err == nil && len(log) <= maxLogBytes
}

// sameLog reports whether a child that has applied log up to seq has read what was
// read here, so that its numbers and ours mean the same entries. What is not known
// is not the same. Before the first entry all logs are.
func (e *Edge) sameLog(seq uint64, log string) bool {
	return seq == 0 || log != "" && e.places.at(seq) == log
}
