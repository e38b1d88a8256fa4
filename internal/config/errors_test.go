package config

import (
	"errors"
	"strings"
	"testing"
)

const fleetText = `version = 1
[edge.fra1]
addresses = ["192.0.2.10"]
listen = ["0.0.0.0:80"]
[edge.iad1]
addresses = ["192.0.2.20"]
listen = ["0.0.0.0:80"]
`

func TestErrorForm(t *testing.T) {
	_, err := Parse("perigee.toml", []byte(fleetText+"[policy.canary]\nby = \"weighted\"\nweights = { fra9 = 90, iad1 = 10 }\n"), ".")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	if want := "perigee.toml:10: policy.canary.weights.fra9: no edge or policy is called fra9"; e.Error() != want {
		t.Errorf("got  %s\nwant %s", e.Error(), want)
	}
	want := `perigee.toml:10: policy.canary.weights.fra9: no edge or policy is called fra9
   10 | weights = { fra9 = 90, iad1 = 10 }
      |             ^^^^
hint: did you mean fra1?
`
	if got := Render(err); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestErrorsBounded(t *testing.T) {
	text := "version = 1\n[dns]\n" + strings.Repeat("x", 1) + " = 1\n"
	for i := range 30 {
		text += "y" + strings.Repeat("z", i) + " = 1\n"
	}
	_, err := Parse("perigee.toml", []byte(text), ".")
	var list *Errors
	if !errors.As(err, &list) || len(list.List) != maxErrors || list.More != 11 {
		t.Fatalf("%v", err)
	}
	if !strings.HasSuffix(Render(err), "\nand 11 more\n") || !strings.HasSuffix(err.Error(), "\nand 11 more") {
		t.Errorf("%s", Render(err))
	}
	for i, e := range list.List {
		if e.Line != i+3 {
			t.Errorf("mistake %d is in line %d: not in line order", i, e.Line)
		}
	}
}
