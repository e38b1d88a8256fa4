package main

import (
	"regexp"
	"testing"
)

// TestDemoSteps checks the list itself: each step says what it expects, or is a
// preparation for the next, and every pattern compiles.
func TestDemoSteps(t *testing.T) {
	d := &demo{dir: "/demo", ports: demoPorts{dns: 5300, http: 8080, https: 8443}}
	steps := demoSteps(d)
	if len(steps) < 20 {
		t.Fatalf("%d steps only", len(steps))
	}
	seen := map[string]bool{}
	for _, s := range steps {
		if s.Cmd == "" {
			t.Errorf("a step without a command: %+v", s)
		}
		seen[s.Cmd] = true
		for _, p := range append(s.Want, s.Not...) {
			if _, err := regexp.Compile("(?m)" + p); err != nil {
				t.Errorf("%s: %v", s.Cmd, err)
			}
		}
	}
}

func TestCompareStep(t *testing.T) {
	s := demoStep{Want: []string{`^127\.0\.1\.1$`}, Not: []string{"HIT"}}
	for _, tt := range []struct {
		out  string
		code int
		good bool
	}{
		{"x\n127.0.1.1\n", 0, true},
		{"127.0.1.12\n", 0, false},
		{"127.0.1.1\nHIT\n", 0, false},
		{"127.0.1.1\n", 1, false},
	} {
		if why := compareStep(s, tt.out, tt.code); (why == "") != tt.good {
			t.Errorf("compareStep(%q, %d) = %q", tt.out, tt.code, why)
		}
	}
}
