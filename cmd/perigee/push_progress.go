package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"perigee.example/internal/control"
)

const (
	// lineEvery is how often a push tells how far it is where there is no terminal:
	// a log of a build says that it moves, and is not full of it.
	lineEvery = 10 * time.Second
	// eventEvery is how often, with --json.
	eventEvery = time.Second
)

// pushEvent is how far a push is, for programs: one JSON object a line.
type pushEvent struct {
	Stage string `json:"stage"` // hash, rewrite, compress, missing, upload, seal, activate; resume: at another control node
	Files int    `json:"files,omitempty"`
	Of    int    `json:"of,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	From  int64  `json:"from,omitempty"`
	Rate  int64  `json:"rate,omitempty"`    // bytes a second since the stage began
	Left  int64  `json:"left_ms,omitempty"` // at that rate
}

// pushLines tells how far a push is, in lines: for people where stderr is no
// terminal, and for programs with --json, there each stage once more at its start.
type pushLines struct {
	w    io.Writer
	json bool
	now  func() time.Time

	stage       string
	began, last time.Time
}

func (l *pushLines) show(p control.Progress) {
	now := l.now()
	every := lineEvery
	if l.json {
		every = eventEvery
	}
	fresh := p.Stage != l.stage
	if fresh {
		l.stage, l.began, l.last = p.Stage, now, now
	}
	if now.Sub(l.last) < every && !(fresh && l.json) {
		return
	}
	l.last = now
	e := pushEvent{Stage: p.Stage, Files: p.Files, Of: p.Of, Bytes: p.Bytes, From: p.From}
	if spent := now.Sub(l.began).Seconds(); spent > 0 && p.Bytes > 0 {
		rate := float64(p.Bytes) / spent
		e.Rate, e.Left = int64(rate), int64(float64(max(0, p.From-p.Bytes))/rate*1000)
	}
	if l.json {
		if b, err := json.Marshal(e); err == nil { // numbers and a word
			fmt.Fprintf(l.w, "%s\n", b)
		}
		return
	}
	fmt.Fprintf(l.w, "perigee: %s\n", e.text())
}

// text is an event for people.
func (e *pushEvent) text() string {
	parts := []string{fmt.Sprintf("%s: %d of %d", e.Stage, e.Files, e.Of), fmt.Sprintf("%s of %s", size(e.Bytes), size(e.From))}
	if e.Rate > 0 {
		parts = append(parts, size(e.Rate)+"/s", (time.Duration(e.Left)*time.Millisecond).Round(time.Second).String()+" left")
	}
	return strings.Join(parts, ", ")
}

// waitLines tells which nodes are waited for, whenever that has changed.
type waitLines struct {
	w    io.Writer
	last string
}

func (l *waitLines) show(r control.Receipts) {
	if len(r.Waiting) == 0 {
		return
	}
	var who []string
	for i, w := range r.Waiting {
		if i == maxWaitShown {
			who = append(who, fmt.Sprintf("and %d more", len(r.Waiting)-i))
			break
		}
		who = append(who, w.Node+": "+w.Why)
	}
	text := fmt.Sprintf("applied on %d of %s; waiting for %s", len(r.Applied), plural(r.Nodes, "node"), strings.Join(who, "; "))
	if text != l.last {
		fmt.Fprintf(l.w, "perigee: %s\n", text)
		l.last = text
	}
}

// maxWaitShown bounds the nodes that one such line names.
const maxWaitShown = 5
