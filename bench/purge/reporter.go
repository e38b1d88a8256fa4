package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"perigee.example/feed"
	"perigee.example/internal/control"
)

// reporter is a node that applies nothing: it follows the log, acknowledges, and
// reports at the highest rate that nodes do.
type reporter struct {
	f    *fleet
	cred *control.Credentials

	mu sync.Mutex
	at feed.Position
}

func (r *reporter) dial(ctx context.Context) (*feed.Follower, error) {
	return feed.Dial(ctx, feed.DialConfig{ID: r.cred.Name, Addr: r.cred.Feed, TLS: r.cred.TLS(), From: r.position()})
}

func (r *reporter) position() feed.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// run follows until ctx ends, and connects again when the feed is lost.
func (r *reporter) run(ctx context.Context, fo *feed.Follower) {
	for {
		session, end := context.WithCancel(ctx)
		var reading sync.WaitGroup
		reading.Go(func() {
			defer end()
			r.read(session, fo)
		})
		r.report(session, fo)
		reading.Wait()
		end()
		fo.Close()
		for fo = nil; fo == nil; {
			if ctx.Err() != nil {
				return
			}
			var err error
			if fo, err = r.dial(ctx); err != nil {
				pause(ctx, time.Second)
			}
		}
		r.f.lost.Add(1)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *reporter) read(ctx context.Context, fo *feed.Follower) {
	for {
		e, err := fo.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "reporter", r.cred.Name+":", err)
			}
			return
		}
		r.mu.Lock()
		if v := feed.Verify(r.at, e); v.Kind == feed.Break {
			fmt.Fprintln(os.Stderr, r.cred.Name, v.Why)
		}
		r.at = e.Position()
		r.mu.Unlock()
		_ = fo.Ack(e) // a lost one is sent again
	}
}

func (r *reporter) report(ctx context.Context, fo *feed.Follower) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	started := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		r.send(fo, control.ReportWatermark, control.Watermark{Position: r.position()})
		if n%10 == 0 {
			r.send(fo, control.ReportNode, control.NodeReport{Role: "edge", Started: started.UnixMilli(), Config: "bench"})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (r *reporter) send(fo *feed.Follower, kind string, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = fo.Report(kind, b)
	}
	if err == nil {
		r.f.reports.Add(1)
	}
}
