package control

import (
	"net/http"
	"sync"
	"time"
)

const (
	// refusedBurst is how many refusals of one caller have lines of their own, one more
	// each refusedEvery: a person's mistakes do, and a program's that goes on and on are
	// counted. Each line is a sync of the disk.
	refusedBurst = 10
	refusedEvery = time.Second
)

// refusedLines bounds the lines of calls that were refused: whoever has a token could keep
// the disk busy with them, and push every other line out.
type refusedLines struct {
	rate buckets
	mu   sync.Mutex
	more map[string]AuditLine // by caller: the first of those that are only counted
}

// isRefusal reports a call that changed nothing, whatever it was to change. A file is
// no change by itself: one that did not come in is none either.
func isRefusal(method string, status int) bool {
	return status >= 400 && (status < 500 || method == http.MethodPut)
}

// refuse writes the line of a refusal, or counts it.
func (a *audit) refuse(l AuditLine) {
	r := &a.refused
	if r.rate.take(l.Who, 1, 1/refusedEvery.Seconds(), refusedBurst, l.Time) == 0 {
		a.add(l, true)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first, there := r.more[l.Who]
	if !there {
		first = l
		time.AfterFunc(refusedEvery, func() { a.addRefused(l.Who) })
	}
	if r.more == nil {
		r.more = map[string]AuditLine{}
	}
	first.Times++
	r.more[l.Who] = first
}

// addRefused writes the line of a caller's refusals that were counted.
func (a *audit) addRefused(who string) {
	r := &a.refused
	r.mu.Lock()
	l, there := r.more[who]
	delete(r.more, who)
	r.mu.Unlock()
	if there {
		a.add(l, true)
	}
}

// addAllRefused writes those of all callers, ahead of their time.
func (a *audit) addAllRefused() {
	r := &a.refused
	r.mu.Lock()
	more := r.more
	r.more = nil
	r.mu.Unlock()
	for _, l := range more {
		a.add(l, true)
	}
}
