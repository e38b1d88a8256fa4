package txtest

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder stands in for the testing.TB whose end Need may call for.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func need(tools ...string) *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() { defer close(done); Need(r, tools...) }()
	<-done
	return r
}

func TestNeed(t *testing.T) {
	const want = "needs no-such-tool: install it with make tools"
	t.Setenv("CI", "")
	if r := need("go", "no-such-tool"); r.skipped != want || r.failed != "" {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
	if r := need("go"); r.skipped != "" || r.failed != "" {
		t.Errorf("with the tool there: skipped %q, failed %q", r.skipped, r.failed)
	}
	t.Setenv("CI", "true")
	if r := need("no-such-tool"); r.failed != want || r.skipped != "" {
		t.Errorf("under CI: skipped %q, failed %q", r.skipped, r.failed)
	}
}
