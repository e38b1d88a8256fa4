package dnsserver

import "fmt"

// Chaos is what the server says of itself in class CH (RFC 4892), to anybody
// who asks. Empty strings are refused, as all else in that class is.
type Chaos struct {
	Version string // version.bind and version.server
	ID      string // id.server and hostname.bind
}

// maxChaos bounds each text: one character-string (RFC 1035 §3.3).
const maxChaos = 255

// chaosNames are the owners, in lower-case wire form.
var chaosNames = map[string]func(*Chaos) string{
	"\x07version\x04bind\x00":   func(c *Chaos) string { return c.Version },
	"\x07version\x06server\x00": func(c *Chaos) string { return c.Version },
	"\x02id\x06server\x00":      func(c *Chaos) string { return c.ID },
	"\x08hostname\x04bind\x00":  func(c *Chaos) string { return c.ID },
}

func (c *Chaos) check() error {
	if n := max(len(c.Version), len(c.ID)); n > maxChaos {
		return fmt.Errorf("a text for class CH has %d octets: at most %d fit", n, maxChaos)
	}
	return nil
}

// text is what a question of class CH is about, or empty.
func (v *View) text(q *query) string {
	if v == nil || q.qtype != typeTXT && q.qtype != typeANY {
		return ""
	}
	if of, ok := chaosNames[string(q.name[:q.nameLen])]; ok {
		return of(&v.chaos)
	}
	return ""
}

// chaos answers a question of class CH for which there is a text.
func (a *answer) chaos() {
	s := a.v.text(&a.q)
	m := &a.m
	k := m.mark(sectionAnswer)
	m.b = append(m.b, 0xC0, headerLen, 0, typeTXT, 0, classCH, 0, 0, 0, 0) // TTL 0: nothing to keep
	m.b = append(m.b, byte((1+len(s))>>8), byte(1+len(s)), byte(len(s)))
	m.b = append(m.b, s...)
	m.counted(sectionAnswer, 1, 0)
	a.flags |= flagAA
	if !m.settle(sectionAnswer, k, true) {
		a.flags |= flagTC
	}
}
