// Purge measures how fast a purge reaches a fleet: from the call of the control API
// until each of 100 edges has answered a GET with a response that was fetched
// after the call. It does not believe receipts.
//
//	go run ./bench/purge -perigee bin/perigee [-edges 100] [-reporters 300] [-rounds 200] [-many 10000]
//
// The control node and every edge are processes of their own, as they are
// installed: real TCP and TLS, credentials from `perigee node add`, a state folder
// and a synced journal each. Beside them 300 more nodes, with credentials and
// connections of their own, follow the log and report at the highest rate there
// is: the watermark ten times a second, the rest once.
//
// It fails when an edge never gives a fresh response; times are printed, not judged.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("purge: ")
	var o options
	flag.StringVar(&o.perigee, "perigee", "bin/perigee", "the perigee `binary`")
	flag.StringVar(&o.dir, "dir", "", "a `folder` for the state of all nodes (default: a temporary one, removed)")
	flag.IntVar(&o.edges, "edges", 100, "edges, each a process")
	flag.IntVar(&o.reporters, "reporters", 300, "nodes beside them that follow and report at full rate")
	flag.IntVar(&o.rounds, "rounds", 200, "purges of one URL, one after the other")
	flag.IntVar(&o.many, "many", 10_000, "URLs in one `perigee purge --from`, and half as many from 64 callers at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

type options struct {
	perigee, dir                   string
	edges, reporters, rounds, many int
}

// maxNodes is what a control node takes, some left for others.
const maxNodes = 900

func run(ctx context.Context, o options) error {
	if o.edges < 1 || o.edges > 250 || o.edges+o.reporters > maxNodes {
		return fmt.Errorf("1 to 250 edges, and %d nodes in all", maxNodes)
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "bench-purge-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	} else if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	f := &fleet{o: o}
	defer f.close()
	begun := time.Now()
	if err := f.start(ctx); err != nil {
		return err
	}
	fmt.Printf("%d edges (each a process) and %d reporters follow one control node; they were there after %.0f s\n\n", o.edges, o.reporters, time.Since(begun).Seconds())
	for _, part := range []func(context.Context) error{f.idle, f.oneByOne, f.manyAtOnce, f.manyCallers} {
		before := f.cpu()
		if err := part(ctx); err != nil {
			return err
		}
		fmt.Println(f.cpu().since(before))
	}
	reports := f.reports.Load()
	fmt.Printf("reports sent: %d, %.0f a second; a reporter lost the feed and came back %d times\n", reports, float64(reports)/time.Since(f.reporting).Seconds(), f.lost.Load())
	return nil
}

// idleFor is how long the fleet is watched when nothing is purged.
const idleFor = 5 * time.Second

// idle shows what reports alone cost.
func (f *fleet) idle(ctx context.Context) error {
	fmt.Printf("Reports alone, for %s:\n", idleFor)
	timer := time.NewTimer(idleFor)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oneByOne purges one URL again and again, and prints the times until it was
// applied, over all rounds and edges.
func (f *fleet) oneByOne(ctx context.Context) error {
	var acks, applied, last []time.Duration
	for range f.o.rounds {
		ack, times, err := f.round(ctx)
		if err != nil {
			return err
		}
		acks = append(acks, ack)
		applied = append(applied, times...)
		last = append(last, slices.Max(times))
	}
	fmt.Printf("%d purges of one URL, one after the other; from the call of the API, in ms:\n\n", f.o.rounds)
	fmt.Println("| | p50 | p90 | p99 | worst |\n| --- | --- | --- | --- | --- |")
	row("acknowledged (synced on the log)", acks)
	row(fmt.Sprintf("an edge gave a fresh response (%d × %d GETs)", f.o.rounds, f.o.edges), applied)
	row("the last of the edges did", last)
	fmt.Println()
	return nil
}

func row(what string, ds []time.Duration) {
	slices.Sort(ds)
	at := func(q float64) float64 {
		return float64(ds[min(len(ds)-1, int(q*float64(len(ds))))].Microseconds()) / 1000
	}
	fmt.Printf("| %s | %.1f | %.1f | %.1f | %.1f |\n", what, at(0.50), at(0.90), at(0.99), at(1))
}
