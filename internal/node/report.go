package node

import (
	"context"
	"encoding/json"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
)

const (
	// markEvery bounds how often the watermark is reported: ten times a second.
	markEvery = 100 * time.Millisecond
	// reportEvery is how often all of it is reported, changed or not.
	reportEvery = time.Second
)

// report sends the watermark when it changed, at most every markEvery, and
// everything every reportEvery. A report may be lost: the next one says the same.
func (n *Node) report(ctx context.Context, f *feed.Follower) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	n.sendReport(f)
	n.sendMark(f)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.sendReport(f)
			n.sendMark(f)
		case <-n.dirty:
			n.sendMark(f)
			pause := time.NewTimer(markEvery)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
		}
	}
}

// sendMark sends no place on another log: its number would count as a receipt for
// what has that number on this one.
func (n *Node) sendMark(f *feed.Follower) {
	n.mu.Lock()
	elsewhere := n.elsewhere
	n.mu.Unlock()
	if elsewhere {
		return
	}
	n.send(f, control.ReportWatermark, control.Watermark{Position: n.Position(), Pending: n.Pending()})
}

func (n *Node) sendReport(f *feed.Follower) {
	var r control.NodeReport
	if n.c.Report != nil {
		r = n.c.Report()
	}
	n.mu.Lock()
	behind, trouble, tooOld := n.behind, n.trouble, n.tooOld
	n.mu.Unlock()
	r.Role, r.Started = n.c.Role, n.started.UnixMilli()
	if behind {
		r.Trouble = append(r.Trouble, "behind the log: catching up")
	}
	for _, t := range []string{trouble, tooOld} {
		if t != "" {
			r.Trouble = append(r.Trouble, t)
		}
	}
	if n.c.Credentials != nil {
		if w := n.c.Credentials.Warning(time.Now()); w != "" {
			r.Trouble = append(r.Trouble, w)
		}
	}
	n.send(f, control.ReportNode, r)
}

func (n *Node) send(f *feed.Follower, kind string, payload any) {
	b, err := json.Marshal(payload)
	if err == nil {
		err = f.Report(kind, b)
	}
	if err != nil {
		n.log.Debug("report not sent", "kind", kind, "err", err)
	}
}
