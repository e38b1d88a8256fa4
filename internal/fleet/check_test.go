package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const sec = time.Second

// base is a fleet of two edges and two servers that has seen: release 1 pushed (seq 2), release
// 2 pushed (seq 4), version 1 of shop/a purged (seq 5), edge a drained (seq 6), all
// applied everywhere one second after.
func base() *History {
	h := &History{Edges: []string{"a", "b"}, Servers: []string{"d", "e"}, TTL: sec, Pushed: "www",
		Bumps: []Bump{{"shop/a", 1, 20 * sec}}}
	h.op(Op{Kind: Activate, Version: 1, Start: 1 * sec, Seq: 2})
	h.op(Op{Kind: Activate, Version: 2, Start: 11 * sec, Seq: 4})
	h.op(Op{Kind: Purge, URLs: []string{"shop/a"}, Start: 21 * sec, Seq: 5})
	h.op(Op{Kind: Drain, Edge: "a", Start: 31 * sec, Seq: 6})
	for _, o := range h.Ops {
		for _, n := range []string{"a", "b", "d", "e"} {
			h.Receipts = append(h.Receipts, Receipt{o.Seq, n, o.End})
		}
	}
	return h
}

// op adds an operation that takes a second; without a seq it has no acknowledgement.
func (h *History) op(o Op) {
	o.End, o.Acked = o.Start+sec, o.Seq != 0
	h.Ops = append(h.Ops, o)
}

func (h *History) got(edge, url string, at time.Duration, page, version int) {
	h.Replies = append(h.Replies, Reply{Client: "c", Edge: edge, URL: url, Start: at, End: at + sec/10, Page: page, Version: version, Status: 200})
}

func (h *History) named(server string, at time.Duration, edges ...string) {
	h.Answers = append(h.Answers, Answer{Server: server, Start: at, End: at + sec/10, Edges: edges})
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		add  func(h *History)
		want string // rules in order of time, "" is none
	}{
		{"nothing more", func(h *History) {}, ""},
		{"all as it should be", func(h *History) {
			h.got("a", "www/", 5*sec, 0, 1)
			h.got("a", "www/x", 5*sec, 1, 1)
			h.got("a", "www/", 15*sec, 0, 2)
			h.got("b", "shop/a", 10*sec, 0, 0)
			h.got("b", "shop/a", 25*sec, 0, 1)
			h.named("d", 25*sec, "a")
			h.named("d", 35*sec, "b")
			h.Views = append(h.Views, View{Start: 40 * sec, End: 41 * sec, Seq: 6, Active: 2, Drained: []string{"a"}})
		}, ""},

		// Pushes and rollbacks.
		{"an edge goes back to the old release", func(h *History) { h.got("a", "www/", 15*sec, 0, 1) }, "lost"},
		{"either, while the activation is under way", func(h *History) {
			h.got("a", "www/", 11500*time.Millisecond, 0, 1)
			h.got("b", "www/", 11500*time.Millisecond, 0, 2)
		}, ""},
		{"a release before its push begins", func(h *History) { h.got("a", "www/", 9*sec, 0, 2) }, "lost"},
		{"the old one, where there is no receipt yet", func(h *History) {
			h.op(Op{Kind: Activate, Version: 3, Start: 50 * sec, Seq: 8})
			h.Receipts = append(h.Receipts, Receipt{8, "b", 51 * sec})
			h.got("a", "www/", 60*sec, 0, 2)
			h.got("b", "www/", 60*sec, 0, 2)
		}, "lost"},
		{"the receipt of a later purge says nothing of an activation", func(h *History) {
			h.op(Op{Kind: Activate, Version: 3, Start: 50 * sec, Seq: 8})
			h.op(Op{Kind: Purge, Start: 52 * sec, Seq: 9})
			h.Receipts = append(h.Receipts, Receipt{9, "a", 53 * sec})
			h.got("a", "www/", 60*sec, 0, 2)
		}, ""},
		{"one without an acknowledgement may be there or not", func(h *History) {
			h.op(Op{Kind: Activate, Version: 3, Start: 50 * sec})
			h.got("a", "www/", 60*sec, 0, 2)
			h.got("b", "www/", 60*sec, 0, 3)
		}, ""},
		{"but not once a later one is applied, long after", func(h *History) {
			h.op(Op{Kind: Activate, Version: 3, Start: 50 * sec})
			h.op(Op{Kind: Activate, Version: 4, Start: 90 * sec, Seq: 8})
			h.Receipts = append(h.Receipts, Receipt{8, "a", 91 * sec})
			h.got("a", "www/", 95*sec, 0, 3)
		}, "lost"},
		{"the control node lost a push", func(h *History) {
			h.Views = append(h.Views, View{Start: 40 * sec, End: 41 * sec, Seq: 3, Active: 1, Drained: []string{"a"}})
		}, "lost lost"},
		{"a number is given out twice", func(h *History) { h.op(Op{Kind: Purge, Start: 50 * sec, Seq: 6}) }, "lost"},
		{"after a log was restored its entries may be gone", func(h *History) {
			h.Ops[3].Void = true
			h.op(Op{Kind: Purge, Start: 50 * sec, Seq: 6})
			h.Views = append(h.Views, View{Start: 60 * sec, End: 61 * sec, Seq: 6, Active: 2})
			h.named("d", 60*sec, "a")
		}, ""},

		// Pages.
		{"a part of another release", func(h *History) { h.got("a", "www/x", 15*sec, 1, 2) }, "mixed"},
		{"a part that is not there", func(h *History) {
			h.Replies = append(h.Replies, Reply{Edge: "a", URL: "www/x", Page: 2, Start: 15 * sec, End: 16 * sec, Status: 404})
		}, "wrong"},
		{"octets that are missing", func(h *History) {
			h.Replies = append(h.Replies, Reply{Edge: "a", URL: "shop/b", Start: 15 * sec, End: 16 * sec, Status: 200, Wrong: "9 octets of 10"})
		}, "wrong"},

		// Purges.
		{"what was purged", func(h *History) { h.got("a", "shop/a", 25*sec, 0, 0) }, "purged"},
		{"another URL is as it was", func(h *History) { h.got("a", "shop/b", 25*sec, 0, 0) }, ""},
		{"a request from before the receipt", func(h *History) { h.got("a", "shop/a", 21900*time.Millisecond, 0, 0) }, ""},
		{"a purge with no receipt of this edge, then a later entry's", func(h *History) {
			h.Bumps = append(h.Bumps, Bump{"shop/a", 2, 49 * sec})
			h.op(Op{Kind: Purge, URLs: []string{"shop/a"}, Start: 50 * sec, Seq: 7})
			h.op(Op{Kind: Undrain, Edge: "a", Start: 60 * sec, Seq: 8})
			h.Receipts = append(h.Receipts, Receipt{8, "a", 61 * sec})
			h.got("a", "shop/a", 55*sec, 0, 1)
			h.got("b", "shop/a", 65*sec, 0, 1)
			h.got("a", "shop/a", 65*sec, 0, 1)
		}, "purged"},
		{"a version from after the purge", func(h *History) {
			h.Bumps = append(h.Bumps, Bump{"shop/a", 2, 24 * sec})
			h.got("a", "shop/a", 25*sec, 0, 1)
		}, ""},

		// Drains.
		{"a drained edge is named", func(h *History) { h.named("d", 35*sec, "a") }, "drained"},
		{"by a server that has not applied it", func(h *History) {
			h.op(Op{Kind: Drain, Edge: "b", Start: 50 * sec, Seq: 7})
			h.Receipts = append(h.Receipts, Receipt{7, "d", 51 * sec})
			h.named("e", 55*sec, "b")
			h.named("d", 55*sec, "b")
		}, "drained"},
		{"while it is undrained", func(h *History) { h.op(Op{Kind: Undrain, Edge: "a", Start: 50 * sec}); h.named("d", 55*sec, "a") }, ""},
		{"by a resolver, within the TTL", func(h *History) { h.named("", 32500*time.Millisecond, "a") }, ""},
		{"by a resolver, after it", func(h *History) { h.named("", 34*sec, "a") }, "drained"},
		{"the control node forgot a drain", func(h *History) {
			h.Views = append(h.Views, View{Start: 40 * sec, End: 41 * sec, Seq: 6, Active: 2})
		}, "lost"},
		{"an empty answer", func(h *History) { h.named("d", 35*sec) }, "wrong"},

		// Who is served.
		{"refused for nothing", func(h *History) {
			h.Replies = append(h.Replies, Reply{Client: "c", Edge: "a", URL: "www/", Start: 15 * sec, End: 16 * sec, Failed: "refused"})
		}, "refused"},
		{"502 for nothing", func(h *History) {
			h.Replies = append(h.Replies, Reply{Client: "c", Edge: "a", URL: "shop/a", Start: 15 * sec, End: 16 * sec, Status: 502})
		}, "refused"},
		{"refused while the edge is dead, and a moment longer", func(h *History) {
			h.Faults = append(h.Faults, Fault{"kill", "a", 14 * sec, 15 * sec})
			h.Replies = append(h.Replies, Reply{Client: "c", Edge: "a", URL: "www/", Start: 16 * sec, End: 17 * sec, Failed: "refused"})
		}, ""},
		{"refused by another than the dead one", func(h *History) {
			h.Faults = append(h.Faults, Fault{"kill", "ctl", 14 * sec, never})
			h.Replies = append(h.Replies, Reply{Client: "c", Edge: "a", URL: "www/", Start: 16 * sec, End: 17 * sec, Failed: "refused"})
		}, "refused"},
		{"no release yet", func(h *History) {
			h.Replies = append(h.Replies, Reply{Client: "c", Edge: "a", URL: "www/", Start: sec / 2, End: sec, Status: 503})
		}, ""},
		{"no answer for nothing", func(h *History) {
			h.Answers = append(h.Answers, Answer{Server: "d", Start: 15 * sec, End: 16 * sec, Failed: "timeout"})
		}, "refused"},
	} {
		h := base()
		c.add(h)
		var got []string
		text := ""
		for _, v := range Check(h) {
			got = append(got, string(v.Rule))
			text += fmt.Sprintln(v.At, v.Rule, v.Text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q\n%s", c.name, got, c.want, text)
		}
	}
}

// However many things are wrong, the first ones are told, in order.
func TestCheckBounded(t *testing.T) {
	h := base()
	for i := range 2 * maxViolations {
		h.got("a", "www/x", time.Duration(200-i)*sec, 1, 2)
	}
	found := Check(h)
	if len(found) != maxViolations || found[0].At > found[1].At {
		t.Errorf("%d violations, want %d in order", len(found), maxViolations)
	}
}
