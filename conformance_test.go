package perigee_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const floorsFile = "tools/conformance-http/floors.json"

// maxExceptions bounds what the public HTTP cache test suite may ask for in
// vain: each is a place where RFC 9111 says MAY, or differs.
const maxExceptions = 25

// floors of `make conformance-http`: how many tests of each kind must pass.
type floors struct {
	Defaults, Conformance map[string]int
	Exceptions            map[string]string // test id: why
}

func parseFloors(t *testing.T, text []byte) (f floors) {
	t.Helper()
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatalf("%s: %v", floorsFile, err)
	}
	return f
}

// TestConformanceFloors: the exceptions are few and say why, and neither they
// nor the floors have ever become weaker.
func TestConformanceFloors(t *testing.T) {
	text, err := os.ReadFile(floorsFile)
	if err != nil {
		t.Fatal(err)
	}
	now := parseFloors(t, text)
	for _, run := range []map[string]int{now.Defaults, now.Conformance} {
		for _, kind := range []string{"required", "optimal", "check"} {
			if run[kind] <= 0 {
				t.Errorf("%s: no floor for %s", floorsFile, kind)
			}
		}
	}
	if len(now.Exceptions) > maxExceptions {
		t.Errorf("%d exceptions; at most %d are allowed", len(now.Exceptions), maxExceptions)
	}
	for id, why := range now.Exceptions {
		if len(why) < 20 {
			t.Errorf("exception %s: say why: %q", id, why)
		}
	}
	commits, err := exec.Command("git", "log", "--format=%H", "--", floorsFile).Output()
	if err != nil {
		t.Skipf("no history to compare with: %v", err)
	}
	for _, commit := range strings.Fields(string(commits)) {
		text, err := exec.Command("git", "show", commit+":"+floorsFile).Output()
		if err != nil {
			continue // the history of a shallow clone ends
		}
		before := parseFloors(t, text)
		for problem := range weaker(before, now) {
			t.Errorf("since %.12s %s", commit, problem)
		}
		now = before
	}
}

// weaker says where after asks for less than before.
func weaker(before, after floors) map[string]bool {
	problems := map[string]bool{}
	for run, pair := range map[string][2]map[string]int{"defaults": {before.Defaults, after.Defaults}, "conformance": {before.Conformance, after.Conformance}} {
		for kind, n := range pair[0] {
			if pair[1][kind] < n {
				problems["the floor of "+run+" "+kind+" fell"] = true
			}
		}
	}
	if len(before.Exceptions) == 0 {
		return problems // the list was not made yet
	}
	for _, id := range slices.Sorted(maps.Keys(after.Exceptions)) {
		if _, ok := before.Exceptions[id]; !ok {
			problems["there is a new exception: "+id] = true
		}
	}
	return problems
}

func TestWeakerFloors(t *testing.T) {
	base := floors{Defaults: map[string]int{"required": 5}, Conformance: map[string]int{"required": 6}, Exceptions: map[string]string{"a": "why"}}
	for _, c := range []struct {
		name  string
		after floors
		want  int
	}{
		{"the same", base, 0},
		{"higher, shorter", floors{Defaults: map[string]int{"required": 6}, Conformance: map[string]int{"required": 6}}, 0},
		{"lower", floors{Defaults: map[string]int{"required": 4}, Conformance: map[string]int{"required": 6}}, 1},
		{"gone", floors{Defaults: map[string]int{"required": 5}}, 1},
		{"another exception", floors{Defaults: base.Defaults, Conformance: base.Conformance, Exceptions: map[string]string{"b": "why"}}, 1},
	} {
		if got := weaker(base, c.after); len(got) != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
