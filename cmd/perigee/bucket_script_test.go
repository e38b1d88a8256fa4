package main

import (
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"perigee.example/internal/fakes3"
)

// scriptBucket is the command bucket of the scripts:
//
//	bucket start            open a bucket at $HOST; its endpoint is in BUCKET
//	bucket holds N          there are N objects in it
//	bucket well|fails|lies… how it behaves from now on (fakes3.Fault)
func scriptBucket(ts *testscript.TestScript, neg bool, args []string) {
	wrongUse(ts, neg || len(args) == 0 || (args[0] == "holds") != (len(args) == 2), "bucket start|holds N|well|FAULT")
	if args[0] == "start" {
		s := fakes3.Start(backgroundOf(ts).tb, ts.Getenv("HOST"))
		backgroundOf(ts).bucket = s
		ts.Setenv("BUCKET", s.URL)
		return
	}
	s := backgroundOf(ts).bucket
	if s == nil {
		ts.Fatalf("bucket start comes first")
	}
	switch args[0] {
	case "holds":
		if n := len(s.Objects(backgroundOf(ts).tb)); strconv.Itoa(n) != args[1] {
			ts.Fatalf("%d objects, want %s: %v", n, args[1], s.Objects(backgroundOf(ts).tb))
		}
	case "well":
		s.Break(fakes3.Well)
	case string(fakes3.Fails), string(fakes3.Denies), string(fakes3.Cuts), string(fakes3.Lies), string(fakes3.Slow):
		s.Break(fakes3.Fault(args[0]))
	default:
		ts.Fatalf("a bucket cannot be %q", args[0])
	}
}
