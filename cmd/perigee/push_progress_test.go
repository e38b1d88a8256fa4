package main

import (
	"strings"
	"testing"
	"time"

	"perigee.example/internal/control"
)

func TestPushTellsHowFarItIs(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	steps := []struct {
		after time.Duration
		p     control.Progress
	}{
		{0, control.Progress{Stage: "hash", Of: 10, From: 1000}},
		{time.Second, control.Progress{Stage: "hash", Files: 10, Of: 10, Bytes: 1000, From: 1000}},
		{time.Second, control.Progress{Stage: "missing", Of: 4, From: 4 << 20}},
		{0, control.Progress{Stage: "upload", Of: 4, From: 4 << 20}},
		{4 * time.Second, control.Progress{Stage: "upload", Of: 4, Bytes: 512 << 10, From: 4 << 20}},
		{4 * time.Second, control.Progress{Stage: "upload", Files: 1, Of: 4, Bytes: 1 << 20, From: 4 << 20}},
		{2 * time.Second, control.Progress{Stage: "upload", Files: 1, Of: 4, Bytes: 1 << 20, From: 4 << 20}},
		{9 * time.Second, control.Progress{Stage: "upload", Files: 2, Of: 4, Bytes: 2 << 20, From: 4 << 20}},
		{time.Second, control.Progress{Stage: "seal"}},
	}
	for _, c := range []struct {
		json bool
		want string
	}{
		{false, "perigee: upload: 1 of 4, 1.0 MiB of 4.0 MiB, 102.4 KiB/s, 30s left\n"},
		{true, `{"stage":"hash","of":10,"from":1000}
{"stage":"hash","files":10,"of":10,"bytes":1000,"from":1000,"rate":1000}
{"stage":"missing","of":4,"from":4194304}
{"stage":"upload","of":4,"from":4194304}
{"stage":"upload","of":4,"bytes":524288,"from":4194304,"rate":131072,"left_ms":28000}
{"stage":"upload","files":1,"of":4,"bytes":1048576,"from":4194304,"rate":131072,"left_ms":24000}
{"stage":"upload","files":1,"of":4,"bytes":1048576,"from":4194304,"rate":104857,"left_ms":30000}
{"stage":"upload","files":2,"of":4,"bytes":2097152,"from":4194304,"rate":110376,"left_ms":19000}
{"stage":"seal"}
`},
	} {
		var out strings.Builder
		now := at
		l := &pushLines{w: &out, json: c.json, now: func() time.Time { return now }}
		for _, s := range steps {
			now = now.Add(s.after)
			l.show(s.p)
		}
		if out.String() != c.want {
			t.Errorf("json %v:\n%swant\n%s", c.json, out.String(), c.want)
		}
	}
}

func TestWaitTellsNodeByNode(t *testing.T) {
	var out strings.Builder
	l := &waitLines{w: &out}
	waiting := []control.Waiting{{Node: "fra1", Why: "12 blobs to fetch"}, {Node: "iad1", Why: "no report for 9s"}}
	l.show(control.Receipts{Nodes: 3, Applied: make([]control.Receipt, 1), Waiting: waiting})
	l.show(control.Receipts{Nodes: 3, Applied: make([]control.Receipt, 1), Waiting: waiting}) // nothing new
	l.show(control.Receipts{Nodes: 3, Applied: make([]control.Receipt, 2), Waiting: waiting[1:]})
	l.show(control.Receipts{Nodes: 3, Applied: make([]control.Receipt, 3)})
	for range 7 {
		waiting = append(waiting, control.Waiting{Node: "n", Why: "x"})
	}
	l.show(control.Receipts{Nodes: 9, Waiting: waiting})
	want := `perigee: applied on 1 of 3 nodes; waiting for fra1: 12 blobs to fetch; iad1: no report for 9s
perigee: applied on 2 of 3 nodes; waiting for iad1: no report for 9s
perigee: applied on 0 of 9 nodes; waiting for fra1: 12 blobs to fetch; iad1: no report for 9s; n: x; n: x; n: x; and 4 more
`
	if out.String() != want {
		t.Errorf("%swant\n%s", out.String(), want)
	}
}
